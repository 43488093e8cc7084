"""Cold pull of 1 GB over loopback, against the SDK's own download, curl, and MD5.

python -m benchmarks.pull [ROUNDS]

Rounds are interleaved: in each, every contestant fetches the same files once into an empty
folder, and the ratios are taken within the round; the medians are printed. Server and client
share the machine's processors. Of all contestants only `registry pull` checks digests (MD5),
records SHA-256 and makes the files durable: on two processors that is more work than MD5
alone, and the server's share comes on top, so the processor time is printed too.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

from benchmarks._stage import Stage, allocated_bytes, stage, write_weights
from registry import Settings, open_hub

BIG_FILES, BIG_BYTES = 3, 320_000_000
SMALL_FILES, SMALL_BYTES = 40, 1_000_000
ROUNDS = 5


def make_source(folder: Path) -> int:
    """Write the artifact's files; return their size in bytes."""
    folder.mkdir()
    for index in range(BIG_FILES):
        write_weights(folder / f"model-{index}.safetensors", BIG_BYTES)
    for index in range(SMALL_FILES):
        (folder / f"part-{index}.json").write_text(json.dumps(os.urandom(SMALL_BYTES // 2).hex()))
    return sum(path.stat().st_size for path in folder.iterdir())


class Contest:
    """The contestants of one artifact.

    Args:
        at: the stage.
        name: the artifact's pinned name.
        source: the folder that it was logged from.
    """

    def __init__(self, at: Stage, name: str, source: Path) -> None:
        self._stage = at
        self._name = name
        self._source = source
        self.found: dict[str, list[float]] = defaultdict(list)

    def round(self) -> None:
        """Let everyone run once."""
        for contestant in (self._md5, self._curl, self._curl_parallel, self._pull, self._sdk):
            home = self._stage.folder / "round"
            home.mkdir()
            os.sync()
            contestant(home)
            shutil.rmtree(home)

    def _md5(self, _home: Path) -> None:
        started_s = time.perf_counter()
        for path in sorted(self._source.iterdir()):
            with path.open("rb") as file:
                hashlib.file_digest(file, "md5")
        self.found["md5"].append(time.perf_counter() - started_s)

    def _curl(self, home: Path) -> None:
        self._curl_as("curl", home)

    def _curl_parallel(self, home: Path) -> None:
        self._curl_as("curl --parallel", home, "--parallel", "--parallel-max", "8")

    def _curl_as(self, label: str, home: Path, *options: str) -> None:
        command = ["curl", "--silent", "--fail", *options]
        for path, url in self._urls().items():
            command += ["-o", str(home / path), url]
        started_s = time.perf_counter()
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        self.found[label].append(time.perf_counter() - started_s)

    def _urls(self) -> dict[str, str]:
        environment = self._stage.backend.env(self._stage.folder / "urls")
        os.environ.update({k: v for k, v in environment.items() if k.startswith("WANDB_")})
        hub = open_hub(Settings.from_environment())
        entity, project, collection = self._name.partition(":")[0].split("/")
        version = hub.version(entity, project, collection, "v0")
        if version is None:
            raise SystemExit(f"{self._name} is gone")
        return hub.addresses(version, [file.path for file in hub.files(version)])

    def _pull(self, home: Path) -> None:
        self._fetch("pull", home, [home / "runport"])

    def _sdk(self, home: Path) -> None:
        self._fetch("sdk", home, [home / "cache", home / "data", home / "taken"])

    def _fetch(self, kind: str, home: Path, folders: list[Path]) -> None:
        command = [sys.executable, "-m", "benchmarks._fetch", kind, self._name, str(home / "taken")]
        ended = self._stage.run(command, home)
        measured = json.loads(ended.output)
        self.found[kind].append(measured["seconds"])
        self.found[f"{kind} process"].append(ended.wall_s)
        self.found[f"{kind} cpu"].append(measured["cpu_s"])
        self.found[f"{kind} written"].append(measured["written_bytes"])
        self.found[f"{kind} disk"].append(allocated_bytes(*folders))
        self.found[f"{kind} memory"].append(ended.peak_bytes)

    def ratio(self, over: str, under: str) -> float:
        """Return the median over the rounds of one figure by another."""
        pairs = zip(self.found[over], self.found[under], strict=True)
        return statistics.median(a / b for a, b in pairs)


def report(contest: Contest, size_bytes: int) -> None:
    """Print the table."""
    for label in ("md5", "curl", "curl --parallel", "pull", "sdk", "pull process", "sdk process"):
        seconds = statistics.median(contest.found[label])
        print(f"{label:<16} {seconds:7.2f} s {size_bytes / seconds / 1e6:8.0f} MB/s")
    for kind in ("pull", "sdk"):
        cpu_s, peak = (statistics.median(contest.found[f"{kind} {x}"]) for x in ("cpu", "memory"))
        print(f"{kind:<16} {cpu_s:7.2f} s of processor time, {peak / 1e6:.0f} MB of memory")
    contest.found["bound"] = [
        max(pair) for pair in zip(contest.found["md5"], contest.found["curl"], strict=True)
    ]
    size = contest.found["size"] = [size_bytes] * len(contest.found["pull"])
    print(f"speed: pull / SDK                    {contest.ratio('sdk', 'pull'):5.2f}  (reach: 2)")
    whole = contest.ratio("sdk process", "pull process")
    print(f"speed: pull / SDK, whole processes   {whole:5.2f}")
    print(
        f"speed: pull / min(curl, MD5)         {contest.ratio('bound', 'pull'):5.2f}  (reach: 0.9)"
    )
    print(f"speed: pull / MD5                    {contest.ratio('md5', 'pull'):5.2f}")
    print(f"speed: pull / curl                   {contest.ratio('curl', 'pull'):5.2f}")
    print(f"speed: pull / curl --parallel        {contest.ratio('curl --parallel', 'pull'):5.2f}")
    for kind, reach in (("pull", "  (reach: 1.0)"), ("sdk", "")):
        disk, written = (contest.ratio(f"{kind} {x}", "size") for x in ("disk", "written"))
        print(f"disk: {kind:<4} / artifact               {disk:5.2f}{reach}; written {written:.2f}")
    print(f"rounds: {len(size)}, processors: {os.cpu_count()}, shared with the server")


def main() -> None:
    """Log 1 GB, let everyone fetch it, print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with stage() as at:
        source = at.folder / "source"
        size_bytes = make_source(source)
        contest = Contest(at, at.log("run-big", source), source)
        for _ in range(rounds):
            contest.round()
        report(contest, size_bytes)


if __name__ == "__main__":
    main()
