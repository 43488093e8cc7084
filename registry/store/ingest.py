"""Partial files: bytes on their way in, which the next pull goes on with.

A partial file holds the data and, behind it, one byte per block that says
whether the block is complete. Both live in one file so that claiming a partial
is a single rename. After a power cut the marks may be ahead of the data; the
digest of the whole finds that, and the file is fetched again.

Each owner writes under a name of its own, so that two processes never write
into one file even where locks do nothing.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from registry.store.durable import make_folder, storage_errors
from registry.store.owners import is_gone, owner_mark
from registry.versions import Digest

BLOCK_BYTES = 1024 * 1024
"""What an interruption loses at most, per connection."""

_READ_BYTES = 256 * 1024

_counter = itertools.count()


class Hasher(Protocol):
    """What `hashlib` and `xxhash` have in common."""

    def update(self, data: bytes | memoryview, /) -> object:
        """Take in more bytes."""

    def hexdigest(self) -> str:
        """Return the digest so far."""


class Partial:
    """A file of known size that arrives in blocks, in any order, by several threads.

    Attributes:
        path: where it lies now.
        size_bytes: length when complete.
        kept_bytes: what an earlier, interrupted pull had already fetched.
    """

    def __init__(self, path: Path, size_bytes: int, descriptor: int, done: bytearray) -> None:
        self.path = path
        self.size_bytes = size_bytes
        self.kept_bytes = sum(
            block_length(size_bytes, index) for index, flag in enumerate(done) if flag
        )
        self._descriptor = descriptor
        self._done = done
        self._changed = threading.Condition()
        self._failure: BaseException | None = None

    def missing(self, limit_bytes: int) -> list[tuple[int, int]]:
        """Return [start, end) ranges still to fetch, each at most `limit_bytes` long."""
        per_range = max(1, limit_bytes // BLOCK_BYTES)
        ranges: list[tuple[int, int]] = []
        index = 0
        while index < len(self._done):
            first = index
            while index < len(self._done) and not self._done[index] and index - first < per_range:
                index += 1
            if index > first:
                ranges.append((first * BLOCK_BYTES, min(index * BLOCK_BYTES, self.size_bytes)))
            else:
                index += 1
        return ranges

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Write bytes at `offset`, and mark the blocks that end within them.

        The caller writes each range in order, from the start of a block.

        Raises:
            StorageError: the disk refuses.
        """
        end = offset + len(data)
        with storage_errors(f"write {self.path.name}"):
            view = memoryview(data)
            while view:
                written = os.pwrite(self._descriptor, view, end - len(view))
                view = view[written:]
            first, last = offset // BLOCK_BYTES, end // BLOCK_BYTES
            if end == self.size_bytes and end % BLOCK_BYTES:
                last += 1
            if last > first:
                self._mark(first, last)

    def _mark(self, first: int, last: int) -> None:
        flags = b"\x01" * (last - first)
        os.pwrite(self._descriptor, flags, self.size_bytes + first)
        with self._changed:
            self._done[first:last] = flags
            self._changed.notify_all()

    def feed(self, hasher: Hasher) -> None:
        """Feed the whole file to `hasher`, waiting for each block to arrive.

        Raises:
            BaseException: what `fail` was given, when the transfer gave up.
            StorageError: the disk refuses.
        """
        # One buffer for all: memory that is new for every block has to be cleared for every block.
        buffer = memoryview(bytearray(min(_READ_BYTES, self.size_bytes)))
        for index in range(len(self._done)):
            self._await(index)
            at = index * BLOCK_BYTES
            end = at + block_length(self.size_bytes, index)
            with storage_errors(f"read {self.path.name}"):
                while at < end:
                    count = os.preadv(self._descriptor, [buffer[: end - at]], at)
                    if not count:
                        raise OSError("the file is shorter than it was")
                    hasher.update(buffer[:count])
                    at += count

    def _await(self, index: int) -> None:
        if self._done[index]:
            return
        with self._changed:
            self._changed.wait_for(lambda: self._done[index] or self._failure)
            if not self._done[index] and self._failure is not None:
                raise self._failure

    def fail(self, error: BaseException) -> None:
        """Wake whoever waits for blocks that will not come."""
        with self._changed:
            self._failure = error
            self._changed.notify_all()

    def restart(self) -> None:
        """Forget all blocks: what arrived is wrong."""
        with storage_errors(f"write {self.path.name}"):
            os.pwrite(self._descriptor, bytes(len(self._done)), self.size_bytes)
        self._done[:] = bytes(len(self._done))
        self._failure = None

    def flush(self) -> None:
        """Make the bytes that are here durable, while whoever follows still hashes them.

        Raises:
            StorageError: the disk refuses.
        """
        with storage_errors(f"write {self.path.name}"):
            os.fdatasync(self._descriptor)

    def seal(self) -> None:
        """Cut off the marks, make the bytes durable and read-only, and close the file."""
        with storage_errors(f"complete {self.path.name}"):
            os.ftruncate(self._descriptor, self.size_bytes)
            os.fchmod(self._descriptor, 0o444)
            os.fsync(self._descriptor)
        self.close()

    def close(self) -> None:
        """Close the file; safe to call again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Ingest:
    """The folder of partial files.

    Args:
        folder: created on first use.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, digest: Digest, size_bytes: int) -> Partial:
        """Claim what an earlier pull left of this file, or begin a new one.

        Raises:
            StorageError: the folder cannot be written.
        """
        key = f"{digest.algorithm}-{digest.hex}-{size_bytes}"
        with storage_errors(f"write into {self._folder}"):
            make_folder(self._folder)
            path = self._folder / f"{key}.{owner_mark()}.{next(_counter)}.part"
            for left in self._unowned(key):
                with suppress(FileNotFoundError):
                    os.rename(left, path)
                    break
            return _open_partial(path, size_bytes)

    def release(self, partial: Partial) -> None:
        """Leave the partial for the next pull."""
        partial.close()
        free = partial.path.with_name(partial.path.name.split(".", 1)[0] + ".part")
        with suppress(OSError):
            partial.path.chmod(0o600)  # It may have been sealed already.
            os.replace(partial.path, free)

    def discard(self, partial: Partial) -> None:
        """Remove the partial: nothing of it is worth keeping."""
        partial.close()
        with suppress(OSError):
            partial.path.unlink()

    def _unowned(self, key: str) -> Iterator[Path]:
        yield self._folder / f"{key}.part"
        for path in sorted(self._folder.glob(f"{key}.*.part")):
            if is_idle(path):
                yield path


def block_length(size_bytes: int, index: int) -> int:
    """Return the length of block `index` of a file of this size."""
    return min(BLOCK_BYTES, size_bytes - index * BLOCK_BYTES)


def _open_partial(path: Path, size_bytes: int) -> Partial:
    blocks = -(-size_bytes // BLOCK_BYTES)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        done = bytearray(blocks)
        length = os.fstat(descriptor).st_size
        if length == size_bytes and blocks:
            done[:] = b"\x01" * blocks  # Sealed, but its blob could not be published.
            os.pwrite(descriptor, done, size_bytes)
        elif length == size_bytes + blocks:
            done[:] = os.pread(descriptor, blocks, size_bytes).ljust(blocks, b"\x00")
        else:
            os.ftruncate(descriptor, 0)
            os.ftruncate(descriptor, size_bytes + blocks)
    except BaseException:
        os.close(descriptor)
        raise
    return Partial(path, size_bytes, descriptor, done)


def is_idle(path: Path) -> bool:
    """Whether no living process writes into this partial file."""
    marks = path.name.split(".")
    if len(marks) != 6:
        return len(marks) == 2
    try:
        return is_gone(".".join(marks[1:4]), path.stat().st_mtime)
    except OSError:
        return False
