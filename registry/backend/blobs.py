"""Content-addressed files: `blobs/ab/<sha256>`, immutable, mode 0444.

A blob arrives in a temporary file, is hashed while it streams, synced, checked, and only then
renamed to its address. `publish` must be called inside the write transaction that records the
reference, and `collect` runs inside one too, so that collection never races an arrival.
All calls block; callers run them in threads.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import xxhash

from registry.errors import IntegrityError, NotFoundError, StorageError

CHUNK_BYTES = 128 * 1024
"""Every transfer holds a few of these; the SDK makes dozens of transfers at once."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes that are known: SHA-256, MD5 and XXH128 as lower-case hex, and their number."""

    sha256: str
    md5: str
    xxh128: str
    size_bytes: int


class BlobWriter:
    """One arriving blob; use through `BlobStore.writer`."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self._file = file
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._xxh128 = xxhash.xxh128()
        self._size_bytes = 0

    def write(self, chunk: bytes) -> None:
        """Append `chunk`; flat memory.

        Raises:
            StorageError: the disk is full or failing.
        """
        with storage_errors(self.path):
            # A raw file may take less than it is given, and on a full disk it does.
            left = memoryview(chunk)
            while left:
                left = left[self._file.write(left) :]
        self._sha256.update(chunk)
        self._md5.update(chunk)
        self._xxh128.update(chunk)
        self._size_bytes += len(chunk)

    def finish(self, *, size_bytes: int | None = None, md5: str | None = None) -> Blob:
        """Sync the bytes to disk and return what arrived, checked against what was promised.

        Raises:
            IntegrityError: size or MD5 (hex) differ from the given ones.
            StorageError: the disk is full or failing.
        """
        blob = Blob(
            self._sha256.hexdigest(),
            self._md5.hexdigest(),
            self._xxh128.hexdigest(),
            self._size_bytes,
        )
        if size_bytes is not None and size_bytes != blob.size_bytes:
            raise IntegrityError(f"{blob.size_bytes} bytes arrived, {size_bytes} were promised.")
        if md5 is not None and md5 != blob.md5:
            raise IntegrityError(f"The bytes have MD5 {blob.md5}, {md5} was promised.")
        with storage_errors(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())
            os.fchmod(self._file.fileno(), 0o444)
        return blob


class BlobStore:
    """The folder of blobs.

    Args:
        root: folder for blobs and temporary files; created with mode 0700 by `open`.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / "incoming"

    def open(self) -> None:
        """Create the folders and remove temporary files that a killed process left.

        Raises:
            StorageError: the folder cannot be written.
        """
        with storage_errors(self._root):
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._incoming.mkdir(mode=0o700, exist_ok=True)
            for leftover in self._incoming.iterdir():
                leftover.unlink()
            # A process killed between making a blob's folder and this left it in memory only.
            sync_directory(self._root)

    def path(self, sha256: str) -> Path:
        """Return where the blob lies.

        Raises:
            NotFoundError: the text is no SHA-256 in hex.
        """
        if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
            raise NotFoundError("Not a blob address.")
        return self._root / sha256[:2] / sha256

    def exists(self, sha256: str) -> bool:
        """Tell whether the blob is stored."""
        return self.path(sha256).is_file()

    @contextmanager
    def writer(self) -> Iterator[BlobWriter]:
        """Give a writer; unless it was published, its temporary file is gone afterwards."""
        path = self._incoming / secrets.token_hex(16)
        with storage_errors(path):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                yield BlobWriter(path, file)
        finally:
            path.unlink(missing_ok=True)

    def publish(self, writer: BlobWriter, blob: Blob) -> None:
        """Move a finished blob to its address; call inside the transaction that refers to it.

        Raises:
            StorageError: the disk is full or failing.
        """
        target = self.path(blob.sha256)
        with storage_errors(target):
            if not target.parent.is_dir():
                target.parent.mkdir(mode=0o700, exist_ok=True)
                sync_directory(self._root)
            writer.path.replace(target)
            sync_directory(target.parent)

    def read(self, sha256: str) -> bytes:
        """Return a small blob whole.

        Raises:
            NotFoundError: no such blob.
        """
        try:
            return self.path(sha256).read_bytes()
        except FileNotFoundError as error:
            raise NotFoundError(f"Blob {sha256} is not stored.") from error

    def chunks(self, sha256: str) -> Iterator[bytes]:
        """Yield the blob in pieces of at most `CHUNK_BYTES`.

        Raises:
            NotFoundError: no such blob.
        """
        try:
            file = self.path(sha256).open("rb")
        except FileNotFoundError as error:
            raise NotFoundError(f"Blob {sha256} is not stored.") from error
        with file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def collect(
        self,
        connection: sqlite3.Connection,
        references: Sequence[str],
        candidates: Iterable[str] | None = None,
    ) -> int:
        """Delete blobs to which nothing refers and return their number.

        Args:
            connection: a write transaction, which keeps arrivals out meanwhile.
            references: SQL queries, each giving one column of SHA-256 (or NULL).
            candidates: look at these only; None looks at every stored blob.
        """
        if candidates is None:
            orphans = set(self._stored())
            for query in references:
                orphans.difference_update(row[0] for row in connection.execute(query))
        else:
            orphans = {
                sha256
                for sha256 in candidates
                if not any(_refers(connection, query, sha256) for query in references)
            }
        for sha256 in orphans:
            self.path(sha256).unlink(missing_ok=True)
        return len(orphans)

    def _stored(self) -> Iterator[str]:
        for folder in self._root.iterdir():
            # Whatever else lies here (`lost+found` of a file system of its own) is not ours.
            if len(folder.name) == 2 and folder.is_dir():
                yield from (entry.name for entry in folder.iterdir())


def _refers(connection: sqlite3.Connection, query: str, sha256: str) -> bool:
    # The query is a part's own text; written so, SQLite looks the value up in its index.
    lookup = f"WITH blobs (sha256) AS ({query}) SELECT 1 FROM blobs WHERE sha256 = ? LIMIT 1"  # noqa: S608
    return connection.execute(lookup, (sha256,)).fetchone() is not None


def sync_directory(path: Path) -> None:
    """Make the names in a folder survive power loss."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's errors about `path` into `StorageError`."""
    try:
        yield
    except OSError as error:
        reason = "the disk is full" if error.errno in _FULL else (error.strerror or str(error))
        raise StorageError(
            f"The backend cannot store {path.name}: {reason}.",
            hint="Free space in the data folder, then try again; nothing stored was damaged.",
        ) from error
