"""Cold pull of 1 GB over loopback, against the SDK's own download, curl, and MD5.

python -m benchmarks.pull [ROUNDS] [--untouched]

Rounds are interleaved: in each, every contestant fetches the same files once into an empty
folder, and the ratios are taken within the round; the medians are printed. The order turns
around from round to round. Server and client share the machine's processors. Of all contestants
only `registry pull` checks digests (MD5), records SHA-256 and makes the files durable: on two
processors that is more work than MD5 alone, and the server's share comes on top, so the processor
time is printed too.

Everyone starts with memory that this machine has touched just before (see `_memory`), unless
`--untouched` is given: then a virtual machine may have to get it from its host page by page,
which costs chance, and whoever writes more.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks._stage import Stage, allocated_bytes, stage, write_weights
from registry import Settings, open_hub
from tests.backend_process import REPOSITORY

BIG_FILES, BIG_BYTES = 3, 320_000_000
SMALL_FILES, SMALL_BYTES = 40, 1_000_000
ROUNDS = 5
TOUCHED_BYTES = 3_000_000_000


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
        touches: whether memory is touched before each download.
    """

    def __init__(self, at: Stage, name: str, source: Path, *, touches: bool) -> None:
        self._touches = touches
        self._stage = at
        self._name = name
        self._source = source
        self.found: dict[str, list[float]] = defaultdict(list)

    def round(self, number: int) -> None:
        """Let everyone run once."""
        self.found["load"].append(os.getloadavg()[0])
        everyone: list[Callable[[Path], None]] = [
            self._md5,
            self._curl,
            self._curl_parallel,
            partial(self._fetch, "pull"),
            partial(self._fetch, "sdk"),
        ]
        for contestant in everyone if number % 2 == 0 else reversed(everyone):
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
        self._prepare_memory()
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

    def _fetch(self, kind: str, home: Path) -> None:
        command = [sys.executable, "-m", "benchmarks._fetch", kind, self._name, str(home / "taken")]
        environment = self._stage.backend.env(home, RUNPORT_CACHE_DIR=str(home / "runport"))
        server_s = self._server_s()
        output, peak_bytes = self._answer(command, environment)
        measured = json.loads(output)
        self.found[kind].append(measured["seconds"])
        self.found[f"{kind} cpu"].append(measured["cpu_s"])
        self.found[f"{kind} server"].append(self._server_s() - server_s)
        self.found[f"{kind} written"].append(measured["written_bytes"])
        folders = {"pull": ["runport"], "sdk": ["cache", "data", "taken"]}[kind]
        self.found[f"{kind} disk"].append(allocated_bytes(*(home / name for name in folders)))
        self.found[f"{kind} memory"].append(peak_bytes)

    def _answer(self, command: Sequence[str], environment: Mapping[str, str]) -> tuple[str, int]:
        """Start a download, let it begin when it is ready; return its words and peak memory."""
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command, env=environment, cwd=REPOSITORY, stdin=pipe, stdout=pipe, text=True
        ) as process:
            if process.stdin is None or process.stdout is None:
                raise SystemExit("no pipes")
            process.stdout.readline()
            self._prepare_memory()
            process.stdin.write("go\n")
            process.stdin.close()
            output = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{command[2:4]} ended with {process.returncode}")
        return output, usage.ru_maxrss * 1024

    def _prepare_memory(self) -> None:
        """Touch what the hungriest contestant needs, in a process that gives it back."""
        if self._touches:
            command = [sys.executable, "-m", "benchmarks._memory", str(TOUCHED_BYTES)]
            subprocess.run(command, check=True, cwd=REPOSITORY)

    def _server_s(self) -> float:
        """Return the processor time that the server has taken so far."""
        process = self._stage.backend.process
        if process is None:
            raise SystemExit("the server is gone")
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def ratio(self, over: str, under: str) -> float:
        """Return the median over the rounds of one figure by another."""
        pairs = zip(self.found[over], self.found[under], strict=True)
        return statistics.median(a / b for a, b in pairs)


def report(contest: Contest, size_bytes: int) -> None:
    """Print the table."""
    for label in ("md5", "curl", "curl --parallel", "pull", "sdk"):
        seconds = statistics.median(contest.found[label])
        print(f"{label:<16} {seconds:7.2f} s {size_bytes / seconds / 1e6:8.0f} MB/s")
    for kind in ("pull", "sdk"):
        cpu_s, server_s, peak = (
            statistics.median(contest.found[f"{kind} {x}"]) for x in ("cpu", "server", "memory")
        )
        print(
            f"{kind:<16} {cpu_s:7.2f} s of processor time, {server_s:.2f} s the server's, "
            f"{peak / 1e6:.0f} MB of memory"
        )
    contest.found["bound"] = [
        max(pair) for pair in zip(contest.found["md5"], contest.found["curl"], strict=True)
    ]
    for over, under, reach in (
        ("sdk", "pull", "reach: 2"),
        ("bound", "pull", "bound = min(curl, MD5), reach: 0.9"),
        ("md5", "pull", ""),
        ("curl", "pull", ""),
        ("curl --parallel", "pull", ""),
    ):
        print(f"speed: {under} / {over:<24} {contest.ratio(over, under):5.2f}  {reach}".rstrip())
    size = contest.found["size"] = [size_bytes] * len(contest.found["pull"])
    for kind, reach in (("pull", "  (reach: 1.0)"), ("sdk", "")):
        disk, written = (contest.ratio(f"{kind} {x}", "size") for x in ("disk", "written"))
        print(f"disk: {kind:<4} / artifact               {disk:5.2f}{reach}; written {written:.2f}")
    load = ", ".join(f"{each:.1f}" for each in contest.found["load"])
    print(f"rounds: {len(size)}, processors: {os.cpu_count()}, shared with the server")
    print(f"runnable processes before each round, over a minute: {load}")


def main() -> None:
    """Log 1 GB, let everyone fetch it, print."""
    parser = argparse.ArgumentParser(prog="benchmarks.pull")
    parser.add_argument("rounds", nargs="?", type=int, default=ROUNDS)
    parser.add_argument("--untouched", action="store_true", help="memory as it is")
    options = parser.parse_args()
    with stage() as at:
        source = at.folder / "source"
        size_bytes = make_source(source)
        name = at.log("run-big", source)
        contest = Contest(at, name, source, touches=not options.untouched)
        for number in range(options.rounds):
            contest.round(number)
        report(contest, size_bytes)


if __name__ == "__main__":
    main()
