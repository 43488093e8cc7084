"""Several threads and processes log to one collection: distinct versions, none lost."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import wandb
from artifact_flow import draft, log, path_of, same, start

PROCESSES = 2
VERSIONS_EACH = 6


def write_some(name: str) -> None:
    """Log `VERSIONS_EACH` distinct versions from threads of one run."""
    with start() as run, ThreadPoolExecutor(3) as threads:
        jobs = [
            threads.submit(log, run, draft("many", "dataset", {"who": f"{name} {index}"}))
            for index in range(VERSIONS_EACH)
        ]
        versions = {job.result().version for job in jobs}
    same(len(versions), VERSIONS_EACH)


def main() -> None:
    if len(sys.argv) > 1:
        write_some(sys.argv[1])
        return
    processes = [
        subprocess.Popen([sys.executable, __file__, str(index)]) for index in range(PROCESSES)
    ]
    same([process.wait(timeout=120) for process in processes], [0] * PROCESSES)
    found = list(wandb.Api().artifacts("dataset", path_of("many")))
    expected = PROCESSES * VERSIONS_EACH
    same(sorted(int(a.version[1:]) for a in found), list(range(expected)))
    same(len({artifact.digest for artifact in found}), expected)
    same(wandb.Api().artifact(path_of("many:latest")).version, f"v{expected - 1}")


if __name__ == "__main__":
    main()
