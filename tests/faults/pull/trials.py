"""Faulty transfers, one after the other: which bytes did the client take for right?

    python -m tests.faults.pull.trials CLIENT COUNT SEED CASE.json FOLDER

Runs the proxy, hurts a transfer, compares whatever the client says it has with what was logged;
then heals the proxy and lets the client fetch again, into the same cache. Prints one JSON object a
trial: `{kind, first, again, wrong_files, visible_wrong}`; an outcome is `right`, `wrong` or
`refused` (an error was raised, or the client died).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.backend_process import REPOSITORY
from tests.faults.backend.small_disk import small_disk
from tests.faults.pull.clients import CLIENTS, Case, load_case
from tests.faults.pull.proxy import Fault, Proxy, proxy

ANSWERS = ("flip", "shift", "truncate", "reset", "stall", "slow-close", "wrong-range",
           "500", "429", "expired")  # fmt: skip
PROCESSES = ("kill", "disk-full", "no-op-locks")
CHILD_TIMEOUT_S = 90
DISK_BYTES = 32 * 1024 * 1024


@dataclass
class Trial:
    """What came of one."""

    kind: str
    first: str = ""
    again: str = ""
    wrong_files: int = 0
    visible_wrong: int = 0


class Harness:
    """Trials of one client."""

    def __init__(self, client: str, case: Case, server: Proxy, folder: Path) -> None:
        self._client = client
        self._case = case
        self._server = server
        self._folder = folder
        self._case_file = folder / "case.json"
        case.save(self._case_file)

    def run(self, kind: str, rng: random.Random) -> Trial:
        """Hurt one transfer, then heal and fetch again."""
        trial = Trial(kind)
        folder = self._folder / "trial"
        # The SDK keeps its cache where it was when it was imported.
        for left in (folder, self._folder / "sdk-cache"):
            shutil.rmtree(left, ignore_errors=True)
        folder.mkdir()
        if kind == "disk-full":
            self._full(trial, rng, folder)
            return trial
        hurt: dict[str, Callable[..., list[Path | None]]] = {
            "kill": self._killed, "no-op-locks": self._crowd,
        }  # fmt: skip
        taken = hurt.get(kind, self._faulty)(kind, rng, folder)
        trial.first = self._judge(trial, taken)
        self._server.heal()
        trial.again = self._judge(trial, [self._fetch(folder)])
        if self._client == "pull":
            trial.visible_wrong = wrong_in_cache(folder / "cache", self._case)
        return trial

    def _judge(self, trial: Trial, taken: list[Path | None]) -> str:
        wrong = [self._wrong(path) for path in taken if path is not None]
        trial.wrong_files += sum(wrong)
        if any(wrong):
            return "wrong"
        return "right" if None not in taken else "refused"

    def _wrong(self, path: Path) -> int:
        facts = self._case.files
        return sum(sha256_of(path / name) != sha256 for name, (_, _, sha256) in facts.items())

    def _fetch(self, folder: Path) -> Path | None:
        try:
            return CLIENTS[self._client](self._case, folder)
        except Exception as error:
            logging.getLogger(__name__).info("%s: %s", type(error).__name__, error)
            return None

    def _faulty(self, kind: str, rng: random.Random, folder: Path) -> list[Path | None]:
        self._server.faults = [
            Fault(kind, rng.random(), times=rng.choice((1, 1, 2, 3))),
            # Often something else goes wrong as well.
            *([Fault(rng.choice(ANSWERS), rng.random())] if rng.random() < 0.4 else []),
        ]
        rng.shuffle(self._server.faults)
        return [self._fetch(folder)]

    def _killed(self, _kind: str, rng: random.Random, folder: Path) -> list[Path | None]:
        self._hold(rng)
        process = self._start(folder)
        self._wait_for_hold(process)
        process.send_signal(signal.SIGKILL)
        return [self._end(process)]

    def _full(self, trial: Trial, rng: random.Random, folder: Path) -> None:
        with small_disk(folder / "disk", DISK_BYTES) as disk:
            self._hold(rng)
            process = self._start(disk.path, wrap=disk.wrap)
            self._wait_for_hold(process)
            disk.fill(leave_bytes=rng.randrange(256 * 1024))
            self._server.heal()
            trial.first = self._judge(trial, [self._end(process, disk.holder.pid)])
            disk.empty()
            process = self._start(disk.path, wrap=disk.wrap)
            trial.again = self._judge(trial, [self._end(process, disk.holder.pid)])
            if self._client == "pull":
                trial.visible_wrong = wrong_in_cache(disk.outside / "cache", self._case)

    def _crowd(self, _kind: str, rng: random.Random, folder: Path) -> list[Path | None]:
        self._server.faults = [Fault(rng.choice(ANSWERS), rng.random(), times=2)]
        crowd = [self._start(folder, "no-op-locks") for _ in range(2)]
        return [self._end(process) for process in crowd]

    def _hold(self, rng: random.Random) -> None:
        self._server.hold(rng.randrange(sum(size for size, _, _ in self._case.files.values())))

    def _wait_for_hold(self, process: subprocess.Popen[str]) -> None:
        while not self._server.held.wait(0.01) and process.poll() is None:
            pass

    def _start(
        self, folder: Path, *more: str, wrap: Callable[[list[str]], list[str]] = list
    ) -> subprocess.Popen[str]:
        program = [sys.executable, "-m", "tests.faults.pull.clients", self._client]
        return subprocess.Popen(
            wrap([*program, str(self._case_file), str(folder), *more]),
            cwd=REPOSITORY,
            env={**os.environ, "WANDB_CACHE_DIR": str(self._sdk_cache(folder))},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def _sdk_cache(self, folder: Path) -> Path:
        # On the small disk where there is one; else where this process has it too.
        return folder / "sdk-cache" if folder.name == "disk" else self._folder / "sdk-cache"

    def _end(self, process: subprocess.Popen[str], seen_from: int | None = None) -> Path | None:
        output, _ = process.communicate(timeout=CHILD_TIMEOUT_S)
        if process.returncode:
            return None
        path = output.splitlines()[-1]
        return Path(path) if seen_from is None else Path(f"/proc/{seen_from}/root{path}")


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"


def wrong_in_cache(cache: Path, case: Case) -> int:
    """Count what is visible in our cache and is not what it should be."""
    blobs = [path for path in (cache / "blobs").rglob("*") if path.is_file()]
    wrong = sum(sha256_of(path) != path.name for path in blobs)
    for record in (cache / "versions").rglob("*.json"):
        snapshot = cache / "snapshots" / json.loads(record.read_bytes())["snapshot"]
        wrong += sum(sha256_of(snapshot / name) != facts[2] for name, facts in case.files.items())
    return wrong


def kinds(count: int, rng: random.Random) -> list[str]:
    """Choose faults: one of five trials hurts the process, the others hurt answers."""
    chosen = [
        (PROCESSES[i // 5 % len(PROCESSES)] if i % 5 == 4 else ANSWERS[(i - i // 5) % len(ANSWERS)])
        for i in range(count)
    ]
    rng.shuffle(chosen)
    return chosen


def main() -> None:
    client, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    direct, folder = load_case(Path(sys.argv[4])), Path(sys.argv[5])
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["WANDB_CACHE_DIR"] = str(folder / "sdk-cache")
    rng = random.Random(seed)
    with proxy(direct.base_url) as server:
        case = dataclasses.replace(direct, base_url=server.base_url)
        harness = Harness(client, case, server, folder)
        for kind in kinds(count, rng):
            sys.stdout.write(json.dumps(harness.run(kind, rng).__dict__) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    # As in `clients`: nobody waits for the SDK's service.
    os._exit(0)
