"""One download in a process of its own, measured from inside: `pull` or `sdk`.

python -m benchmarks._fetch pull NAME
python -m benchmarks._fetch sdk NAME FOLDER

Both have imported the SDK and logged in before the clock starts, so that what is compared is
finding the version and fetching it. Prints an empty line when it is ready, begins when a line
comes in, and prints one JSON object.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import wandb

from registry import Settings, open_hub, pull


def prepare(kind: str, name: str) -> Callable[[], object]:
    """Log in, and return the download."""
    if kind == "sdk":
        api = wandb.Api()
        _ = api.default_entity
        return lambda: api.artifact(name).download(sys.argv[3])
    settings = Settings.from_environment()
    hub = open_hub(settings)
    hub.default_entity()
    return lambda: pull(name, settings=settings, hub=hub)


def written_bytes() -> int:
    """Return how many bytes this process has caused to be written to disks so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["write_bytes"])


def main() -> None:
    """Download and print what it took."""
    fetch = prepare(sys.argv[1], sys.argv[2])
    sys.stdout.write("\n")
    sys.stdout.flush()
    sys.stdin.readline()
    before_bytes = written_bytes()
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    fetch()
    measured = {
        "seconds": time.perf_counter() - started_s,
        "cpu_s": time.process_time() - started_cpu_s,
        "written_bytes": written_bytes() - before_bytes,
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
