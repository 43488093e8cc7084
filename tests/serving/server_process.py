"""A real `registry serve` process on a free port, its log read line by line."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

START_S = 120.0


class ServerProcess:
    """One server; `log` holds all events that it wrote so far."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.log: list[dict[str, Any]] = []
        self.words: list[str] = []
        self.url = ""
        self._fresh: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def wait_for(self, event: str, *, timeout_s: float = START_S, **facts: Any) -> dict[str, Any]:
        """Return the next event of that name with these facts; earlier events are passed by."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                line = self._fresh.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise TimeoutError(f"no {event} within {timeout_s} s:\n{self.tail()}") from None
            if line is None:
                self._fresh.put(None)
                raise RuntimeError(f"ended with {self.process.wait()}:\n{self.tail()}")
            if line.get("event") == event and facts.items() <= line.items():
                return line

    def stop(self, number: signal.Signals = signal.SIGTERM, *, timeout_s: float = 60.0) -> int:
        """Send a signal and return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.end(timeout_s=timeout_s)

    def end(self, *, timeout_s: float = 60.0) -> int:
        """Wait for the exit; returns its status."""
        status = self.process.wait(timeout_s)
        self._reader.join(timeout_s)
        return status

    def model(self, name: str = "bert") -> dict[str, Any]:
        """Return what the server says of a deployment."""
        answer = httpx.get(f"{self.url}/models/{name}")
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def until_ready(self, *, timeout_s: float = 60.0) -> None:
        """Wait until /readyz says yes."""
        deadline = time.monotonic() + timeout_s
        while httpx.get(f"{self.url}/readyz").status_code != 200:
            assert time.monotonic() < deadline, self.tail()
            time.sleep(0.02)

    def tail(self) -> str:
        """Return the last lines of the log."""
        return "\n".join(self.words[-40:])

    def _read(self) -> None:
        stream = self.process.stderr
        assert stream is not None
        for raw in stream:
            line = raw.decode(errors="replace").rstrip("\n")
            self.words.append(line)
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict):
                    self.log.append(event)
                    self._fresh.put(event)
        stream.close()
        self._fresh.put(None)


def server_environment(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a server that keeps everything under `home`."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return {
        **kept,
        "HOME": str(home),
        "RUNPORT_CACHE_DIR": str(home / "cache"),
        "RUNPORT_DATA_DIR": str(home / "data"),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        **(extra or {}),
    }


@contextlib.contextmanager
def server_process(
    home: Path,
    *arguments: str,
    ready: bool = True,
    environment: Mapping[str, str] | None = None,
    command: Sequence[str] = ("-m", "registry", "serve", "--port", "0"),
) -> Iterator[ServerProcess]:
    """Run `registry serve` with these arguments on a free port; ended when the block ends."""
    process = subprocess.Popen(
        [sys.executable, *command, *arguments],
        env=server_environment(home, environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=home,
    )
    server = ServerProcess(process)
    try:
        if ready:
            server.url = server.wait_for("serve.listening")["url"]
            server.wait_for("serve.ready")
        yield server
    finally:
        if process.poll() is None:
            process.kill()
        server.end()
