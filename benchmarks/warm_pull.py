"""A warm `registry pull`: against `wandb --version`, in a process, and 300 artifacts at once.

python -m benchmarks.warm_pull [ROUNDS]

The commands are run in interleaved pairs; the ratio is of the medians. Requests are counted by
taking the server away: with the address of nobody, a pull that asked would fail.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

from benchmarks._stage import PROJECT, Ended, Stage, stage
from registry import Settings, pull
from tests.faults.backend.wire import Wire

ARTIFACTS = 300
ROUNDS = 15
CALLS = 200
REACH = 1 / 8


def fill(at: Stage) -> list[str]:
    """Log small artifacts and return their pinned names."""
    names = []
    with Wire(at.backend) as wire:
        for index in range(ARTIFACTS):
            files = {"config.json": b'{"index": %d}' % index, "notes.md": b"small"}
            wire.log_artifact(
                f"run-{index}",
                files,
                project=PROJECT,
                projectName=PROJECT,
                artifactTypeName="model",
            )
            names.append(f"local/{PROJECT}/run-{index}:v0")
    return names


def milliseconds(ended: list[Ended]) -> tuple[float, float]:
    """Return the medians of time that passed and of processor time."""
    wall_s = statistics.median(each.wall_s for each in ended)
    return wall_s * 1e3, statistics.median(each.cpu_s for each in ended) * 1e3


def in_process_ms(at: Stage, home: Path, name: str) -> float:
    """Return the median time of one call in a process that has pulled before."""
    settings = Settings(
        cache_dir=home / "runport", data_dir=home / "data", base_url=at.backend.base_url
    )
    found = []
    for _ in range(CALLS):
        started_s = time.perf_counter()
        pull(name, settings=settings)
        found.append(time.perf_counter() - started_s)
    return statistics.median(found) * 1e3


def main() -> None:
    """Fill the cache, stop the server, measure, print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    scripts = Path(sys.executable).parent
    with stage() as at:
        names = fill(at)
        home = at.folder / "pulling"
        registry = [str(scripts / "registry"), "pull", "--quiet"]
        at.run([*registry, *names], home)
        at.backend.stop()

        ours, theirs, bare, many = [], [], [], []
        for _ in range(rounds):
            ours.append(at.run([*registry, names[0]], home))
            theirs.append(at.run([str(scripts / "wandb"), "--version"], home))
            bare.append(at.run([sys.executable, "-c", "pass"], home))
            many.append(at.run([*registry, *names], home))

        for label, ended in (
            ("registry pull, cached", ours),
            ("wandb --version", theirs),
            ("python -c pass", bare),
            (f"{len(names)} artifacts, one command", many),
        ):
            wall_ms, cpu_ms = milliseconds(ended)
            print(f"{label:<30} {wall_ms:7.1f} ms, processor {cpu_ms:7.1f} ms")
        (our_ms, our_cpu_ms), (their_ms, their_cpu_ms) = milliseconds(ours), milliseconds(theirs)
        print(f"wandb --version / registry pull {their_ms / our_ms:5.1f}       (reach: 8)")
        print(f"  of processor time             {their_cpu_ms / our_cpu_ms:5.1f}")
        many_s, call_ms = milliseconds(many)[0] / 1e3, in_process_ms(at, home, names[0])
        print(f"300 artifacts, one command      {many_s:5.2f} s     (reach: 1)")
        print(f"one call in a process           {call_ms:5.2f} ms    (reach: 1)")
        print("requests                            0       (the server was stopped)")


if __name__ == "__main__":
    main()
