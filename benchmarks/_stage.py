"""A backend with artifacts in it, and commands run against it: what the pull benchmarks share."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.backend_process import REPOSITORY, BackendProcess, backend_process

PROJECT = "benchmark"

_LOG = """
import sys, wandb
run = wandb.init(project=sys.argv[1], settings=wandb.Settings(console="off"))
artifact = wandb.Artifact(sys.argv[2], "model")
artifact.add_dir(sys.argv[3], policy="immutable", skip_cache=True)
run.log_artifact(artifact).wait()
run.finish()
"""


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that ended well.

    Attributes:
        wall_s, cpu_s: time that passed, and processor time that it and its children took.
        peak_bytes: its largest resident set.
        output: what it printed.
    """

    wall_s: float
    cpu_s: float
    peak_bytes: int
    output: str


@dataclass(frozen=True, slots=True)
class Stage:
    """A running backend and a scratch folder.

    Attributes:
        backend: the process that serves.
        folder: for whatever a benchmark leaves.
    """

    backend: BackendProcess
    folder: Path

    def log(self, name: str, source: Path) -> str:
        """Log a folder as a model through the real SDK; return the name to pull."""
        command = [sys.executable, "-c", _LOG, PROJECT, name, str(source)]
        home = self.folder / "logging"
        subprocess.run(command, check=True, env=self.backend.env(home), cwd=home)
        return f"local/{PROJECT}/{name}:v0"

    def run(self, command: Sequence[str], home: Path, **more: str) -> Ended:
        """Run a command whose caches lie in `home`; raise if it fails."""
        environment = self.backend.env(home, RUNPORT_CACHE_DIR=str(home / "runport"), **more)
        return timed(command, environment)


def timed(command: Sequence[str], environment: Mapping[str, str]) -> Ended:
    """Run a command and measure it.

    Raises:
        SystemExit: it failed.
    """
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as words:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, env=dict(environment), cwd=REPOSITORY, stdout=output, stderr=words
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            words.seek(0)
            raise SystemExit(
                f"{command[:4]} ended with {process.returncode}: {words.read()[-2000:]}"
            )
        output.seek(0)
        cpu_s = usage.ru_utime + usage.ru_stime
        return Ended(wall_s, cpu_s, usage.ru_maxrss * 1024, output.read())


@contextmanager
def stage() -> Iterator[Stage]:
    """Start a backend in a folder that is removed afterwards."""
    with (
        tempfile.TemporaryDirectory(prefix="runport-benchmark-") as folder,
        backend_process(Path(folder, "backend")) as backend,
    ):
        yield Stage(backend, Path(folder))


def write_weights(path: Path, size_bytes: int, *, sparse: bool = False) -> None:
    """Write a safetensors file of random bytes, or of zeros that take no space."""
    for_data = size_bytes - 256
    header = {"w": {"dtype": "U8", "shape": [for_data], "data_offsets": [0, for_data]}}
    raw = json.dumps(header).encode().ljust(256 - 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        if sparse:
            file.truncate(size_bytes)
            return
        while for_data:
            for_data -= file.write(os.urandom(min(for_data, 1 << 24)))


def allocated_bytes(*folders: Path) -> int:
    """Return the space that the files beneath the folders take; hard links count once."""
    files = (path.lstat() for folder in folders for path in folder.rglob("*") if path.is_file())
    return sum({status.st_ino: status.st_blocks * 512 for status in files}.values())
