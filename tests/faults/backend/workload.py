"""Clients that write to a backend and remember what it acknowledged."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

from tests.backend_process import BackendProcess
from tests.faults.backend.wire import RefusedError, Wire

RUN = "busy"


@dataclass
class History:
    """What was acknowledged, and what was sent when the connection broke (it may be there)."""

    rows: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    artifacts: dict[str, dict[str, bytes]] = field(default_factory=dict)
    unsure_files: dict[str, list[bytes]] = field(default_factory=dict)
    acknowledged: int = 0


@dataclass
class Workload:
    """Three clients at once: history lines, run files, artifacts. Survives many backends."""

    seed: int = 0
    history: History = field(default_factory=History)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _errors: list[BaseException] = field(default_factory=list)

    def prepare(self, backend: BackendProcess) -> None:
        with Wire(backend) as wire:
            wire.start_run(RUN)

    @contextmanager
    def running(self, backend: BackendProcess) -> Iterator[None]:
        """Clients write meanwhile; they end when the backend is gone."""
        writers = (self._write_rows, self._write_files, self._log_artifacts)
        threads = [
            threading.Thread(target=self._until_cut, args=(backend, writer)) for writer in writers
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            for thread in threads:
                thread.join()
        if self._errors:
            raise self._errors[0]

    def wait_for(self, acknowledged: int) -> None:
        """Return when so many writes were acknowledged in all."""
        deadline = threading.Event()
        while self.history.acknowledged < acknowledged and not self._errors:
            deadline.wait(0.001)

    def check(self, backend: BackendProcess) -> None:
        """Fail if anything acknowledged is missing, doubled or different."""
        history = self.history
        with Wire(backend) as wire:
            steps = [row["_step"] for row in wire.history(RUN)]
            assert steps == list(range(len(steps)))
            assert len(steps) >= history.rows
            files = wire.run_files(RUN)
            for name, content in history.files.items():
                assert files[name] in [content, *history.unsure_files.get(name, ())]
            for name in files.keys() - history.files.keys():
                assert files[name] in history.unsure_files[name]
            history.files = files
            history.unsure_files.clear()
            if history.artifacts:
                found = wire.versions("cut")
                stored = [version["files"] for version in found.values()]
                assert sorted(found) == list(range(len(found)))
                for content in history.artifacts.values():
                    assert stored.count(content) == 1

    def _until_cut(self, backend: BackendProcess, write: Callable[[Wire], None]) -> None:
        try:
            with Wire(backend) as wire:
                while True:
                    write(wire)
                    with self._lock:
                        self.history.acknowledged += 1
        except httpx.TransportError:
            return
        except (RefusedError, AssertionError, KeyError, json.JSONDecodeError) as error:
            self._errors.append(error)

    def _write_rows(self, wire: Wire) -> None:
        # What was not acknowledged is sent again, as the SDK does: it may be there already.
        start = self.history.rows
        rows = [{"_step": start + index, "loss": 1 / (start + index + 1)} for index in range(5)]
        wire.stream(RUN, start, rows)
        self.history.rows += len(rows)

    def _write_files(self, wire: Wire) -> None:
        chance = random.Random(f"{self.seed}-file-{self.history.acknowledged}")
        name = f"checkpoints/{chance.randrange(12)}.bin"
        content = chance.randbytes(chance.choice((0, 10, 5_000, 300_000)))
        self.history.unsure_files.setdefault(name, []).append(content)
        wire.save_file(RUN, name, content)
        self.history.files[name] = content
        self.history.unsure_files.pop(name)

    def _log_artifacts(self, wire: Wire) -> None:
        number = len(self.history.artifacts)
        chance = random.Random(f"{self.seed}-artifact-{number}")
        files = {f"part/{index}.bin": chance.randbytes(2_000) for index in range(2)}
        files["number.txt"] = str(number).encode()
        wire.log_artifact("cut", files)
        self.history.artifacts[str(number)] = files
