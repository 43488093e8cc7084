"""The folder of one spool: its files' names, its locks, atomic small files.

lane-0/
  spool.json            identity, and how many entries the cap has dropped
  writer.lock           held by the one server that appends here
  reporter.lock         held by the one reporter that reads here
  ack.json              last sequence known to be stored by W&B
  <sequence>.segment    frames; the name is the sequence of the first
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import msgspec

_SUFFIX = ".segment"
_DIGITS = 20

_T = TypeVar("_T")


class SpoolError(Exception):
    """The spool cannot be used: locked by another process, or the disk refuses."""


class Losses(msgspec.Struct, frozen=True):
    """What `spool.json` holds.

    Attributes:
        dropped: entries that the cap removed before W&B had them, ever.
    """

    dropped: int = 0


class Acknowledged(msgspec.Struct, frozen=True):
    """What `ack.json` holds: everything up to `sequence` is stored by W&B."""

    sequence: int = 0


class FileLock:
    """An advisory lock on a file, for the life of the object; the kernel frees it on death."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def acquire(self) -> bool:
        """Take the lock if it is free; say whether it was.

        Raises:
            OSError: the file cannot be made or opened.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Free the lock; does nothing when it is not held."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> FileLock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def segments(lane: Path) -> list[tuple[int, Path]]:
    """Return (first sequence, path) of each segment, oldest first.

    Raises:
        OSError: the folder cannot be read.
    """
    found = []
    for name in os.listdir(lane):
        stem = name.removesuffix(_SUFFIX)
        if stem != name and stem.isdigit():
            found.append((int(stem), lane / name))
    return sorted(found)


def segment_path(lane: Path, first_sequence: int) -> Path:
    """Return the path of the segment whose first entry has this sequence."""
    return lane / f"{first_sequence:0{_DIGITS}d}{_SUFFIX}"


def read_dropped(lane: Path) -> int:
    """Return how many entries the cap has dropped; 0 when nothing says so."""
    losses = _read(lane / "spool.json", Losses)
    return losses.dropped if losses else 0


def write_dropped(lane: Path, dropped: int) -> None:
    """Replace `spool.json`. Raises OSError when the disk refuses."""
    _replace(lane / "spool.json", msgspec.json.encode(Losses(dropped)))


def read_acknowledged(lane: Path) -> int:
    """Return the acknowledged sequence; 0 when nothing is, or the file is damaged.

    Too low a number is harmless: W&B's run says which steps it has.
    """
    acknowledged = _read(lane / "ack.json", Acknowledged)
    return acknowledged.sequence if acknowledged else 0


def write_acknowledged(lane: Path, sequence: int) -> None:
    """Replace `ack.json`. Raises OSError when the disk refuses."""
    _replace(lane / "ack.json", msgspec.json.encode(Acknowledged(sequence)))


def sync_directory(directory: Path) -> None:
    """Make names in a folder durable. Raises OSError when the disk refuses."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path, kind: type[_T]) -> _T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_directory(path.parent)
