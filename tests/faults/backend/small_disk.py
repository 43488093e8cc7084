"""A backend whose data folder is a small file system of its own, in a private mount namespace."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.backend_process import BackendProcess

STOP_TIMEOUT_S = 20


@dataclass
class SmallDisk:
    """A tmpfs of `size_bytes` at `path`, seen from inside; `outside` is our way in."""

    path: Path
    holder: subprocess.Popen[str]

    @property
    def outside(self) -> Path:
        return Path(f"/proc/{self.holder.pid}/root{self.path}")

    @property
    def free_bytes(self) -> int:
        status = os.statvfs(self.outside)
        return status.f_bavail * status.f_frsize

    def fill(self, leave_bytes: int = 0) -> None:
        """Take all space but `leave_bytes`."""
        with (self.outside / "ballast").open("ab") as file:
            while (left := self.free_bytes - leave_bytes) > 0:
                file.write(bytes(min(left, 1 << 20)))
                file.flush()

    def empty(self) -> None:
        """Give back what `fill` took."""
        (self.outside / "ballast").unlink(missing_ok=True)

    def wrap(self, command: list[str]) -> list[str]:
        """The command, run where the disk is mounted, under the same process id."""
        namespaces = ["-t", str(self.holder.pid), "-U", "-m", "--preserve-credentials"]
        return ["nsenter", *namespaces, f"--wd={Path.cwd()}", *command]


@contextmanager
def small_disk(path: Path, size_bytes: int) -> Iterator[SmallDisk]:
    """Mount a tmpfs; skips the test where that is not possible."""
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        pytest.skip("unshare and nsenter are not installed")
    path.mkdir()
    script = 'mount -t tmpfs -o "size=$1,mode=0700" none "$2" && echo mounted && exec sleep 600'
    holder = subprocess.Popen(
        ["unshare", "-Urm", "sh", "-c", script, "sh", str(size_bytes), str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert holder.stdout
    try:
        line = holder.stdout.readline()
        if line != "mounted\n":
            pytest.skip(f"no private mounts here: {line.strip()}")
        yield SmallDisk(path, holder)
    finally:
        holder.kill()
        holder.wait(STOP_TIMEOUT_S)
        holder.stdout.close()


@dataclass
class ConfinedBackend(BackendProcess):
    """A backend on a small disk; `data_dir` is where it lies as seen from outside."""

    disk: SmallDisk | None = None

    def command(self) -> list[str]:
        assert self.disk
        inside = self.disk.path / self.data_dir.name
        outside = str(self.data_dir)
        return self.disk.wrap([str(inside) if w == outside else w for w in super().command()])


@contextmanager
def backend_on(disk: SmallDisk) -> Iterator[ConfinedBackend]:
    backend = ConfinedBackend(disk.outside / "data", disk=disk)
    backend.start()
    try:
        yield backend
    finally:
        if backend.process is not None:
            backend.kill()
