"""A real backend process on a free port, for tests that speak to it over the wire."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

REPOSITORY = Path(__file__).parents[1]
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 20


@dataclass
class BackendProcess:
    """A backend that can be started, stopped, killed and started again on the same port."""

    data_dir: Path
    arguments: Sequence[str] = ()
    port: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def api_key(self) -> str:
        return str(json.loads((self.data_dir / "credentials.json").read_text())["api_key"])

    def command(self) -> list[str]:
        program = [sys.executable, "-m", "registry.backend", "--data", str(self.data_dir)]
        return [*program, "--port", str(self.port), *self.arguments]

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.command(),
            stdout=subprocess.PIPE,
            cwd=REPOSITORY,
            env={**os.environ, **self.environment},
        )
        assert self.process.stdout
        readable, _, _ = select.select([self.process.stdout], [], [], START_TIMEOUT_S)
        line = self.process.stdout.readline() if readable else b""
        if not line:
            self.kill()
            raise RuntimeError("the backend did not start")
        self.port = int(json.loads(line)["base_url"].rpartition(":")[2])

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        assert self.process
        self.process.terminate()
        return self._wait()

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self._wait()

    def _wait(self) -> int:
        assert self.process
        assert self.process.stdout
        status = self.process.wait(STOP_TIMEOUT_S)
        self.process.stdout.close()
        self.process = None
        return status

    def env(self, home: Path, **extra: str) -> dict[str, str]:
        """A whole environment for an SDK process; caches and settings live beneath `home`."""
        for name in ("runs", "cache", "config", "data"):
            (home / name).mkdir(parents=True, exist_ok=True)
        kept = {k: os.environ[k] for k in ("PATH", "LANG", "LC_ALL", "TMPDIR") if k in os.environ}
        return {
            **kept,
            "HOME": str(home),
            "NETRC": str(home / "netrc"),
            "WANDB_BASE_URL": self.base_url,
            "WANDB_API_KEY": self.api_key,
            "WANDB_DIR": str(home / "runs"),
            "WANDB_CACHE_DIR": str(home / "cache"),
            "WANDB_CONFIG_DIR": str(home / "config"),
            "WANDB_DATA_DIR": str(home / "data"),
            "WANDB_ARTIFACT_DIR": str(home / "artifacts"),
            "WANDB_ERROR_REPORTING": "false",
            "WANDB_SILENT": "true",
            "WANDB_CONSOLE": "wrap",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "PYTHONUNBUFFERED": "1",
            **extra,
        }

    def client(self) -> httpx.Client:
        """An HTTP client that carries the key."""
        return httpx.Client(base_url=self.base_url, auth=("api", self.api_key), timeout=60)

    def graphql(self, query: str, **variables: object) -> dict[str, object]:
        """Run an operation and return its data; fails on errors."""
        with self.client() as client:
            answer = client.post("/graphql", json={"query": query, "variables": variables}).json()
        assert not answer.get("errors"), answer
        data = answer["data"]
        assert isinstance(data, dict)
        return data

    def unknown(self) -> dict[str, dict[str, int]]:
        """What clients asked for that the backend does not know."""
        with self.client() as client:
            counts: dict[str, dict[str, int]] = client.get("/_runport/unknown").json()
        return counts


@contextmanager
def backend_process(data_dir: Path, *arguments: str) -> Iterator[BackendProcess]:
    backend = BackendProcess(data_dir, arguments)
    backend.start()
    try:
        yield backend
    finally:
        if backend.process is not None:
            backend.stop()


def run_flow(
    backend: BackendProcess,
    python: Path,
    script: Path,
    home: Path,
    *arguments: str,
    timeout_s: float = 280,
    **extra_env: str,
) -> str:
    """Run a script in a process of its own, in `home`, and return its standard output."""
    started = time.monotonic()
    # SDK 0.22 waits 5 seconds at each start when its socket's path is too long for a socket.
    with tempfile.TemporaryDirectory(prefix="rp-") as short:
        done = subprocess.run(
            [str(python), str(script), *arguments],
            cwd=home,
            env=backend.env(home, **{"TMPDIR": short, **extra_env}),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    spent = time.monotonic() - started
    assert done.returncode == 0, (
        f"{script.name} under {python} ended with {done.returncode} after {spent:.1f} s\n"
        f"--- stdout\n{done.stdout[-4000:]}\n--- stderr\n{done.stderr[-8000:]}"
    )
    return done.stdout
