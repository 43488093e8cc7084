"""The content-addressed cache: what is in it was verified, and stays as it was.

`Store` joins its parts: blobs (bytes), snapshots (folders of blobs), records
(the commit of a version), ingest (bytes on their way in), claims and marks (what
must stay, and what may go first). A version is visible when its record is, and its
record is written last.
"""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from registry.content import Skipped
from registry.store.durable import make_folder, storage_errors
from registry.store.layout import Layout
from registry.store.marks import Marks
from registry.store.records import Records, StoredFile, VersionRecord, now_text
from registry.versions import ArtifactVersion, Conversion

if TYPE_CHECKING:
    from registry.store.blobs import Blobs
    from registry.store.census import Census
    from registry.store.claims import Claims
    from registry.store.ingest import Ingest
    from registry.store.prune import Budget, Choice

__all__ = ["Committed", "Store"]


@dataclass(frozen=True, slots=True)
class Committed:
    """A version that is in the cache.

    Attributes:
        record: its commit.
        path: its snapshot's folder.
    """

    record: VersionRecord
    path: Path


class Store:
    """One cache folder, as seen for one W&B server.

    Args:
        root: the cache folder; created on first write.
        server: the server's address, or empty for the SDK's default.
    """

    def __init__(self, root: Path, server: str) -> None:
        self.layout = Layout(root)
        self.records = Records(self.layout, server)
        self.marks = Marks(self.layout)
        self._server = server

    # What only writing needs is loaded when something is written: a cached version
    # is found in less time than these modules take to load.

    @cached_property
    def blobs(self) -> Blobs:
        """Verified bytes."""
        from registry.store.blobs import Blobs

        return Blobs(self.layout)

    @cached_property
    def ingest(self) -> Ingest:
        """Bytes on their way in."""
        from registry.store.ingest import Ingest

        return Ingest(self.layout.ingest)

    @cached_property
    def claims(self) -> Claims:
        """What running processes need."""
        from registry.store.claims import Claims

        return Claims(self.layout)

    def find(
        self,
        entity: str,
        project: str,
        collection: str,
        version: str,
        selection: str,
        *,
        rehash: bool = False,
    ) -> Committed | None:
        """Return a committed version whose files are all still what they were.

        Files are compared by size and time, and hashed when the time differs or
        `rehash` is set. Wrong ones are put into quarantine and the version is
        forgotten, so that the next pull fetches it again.
        """
        record = self.records.read(entity, project, collection, version, selection)
        if record is None:
            return None
        path = self.layout.snapshot(record.snapshot)
        if not _wrong(path, record, rehash):
            return Committed(record, path)
        # Perhaps a prune is just taking it away. Under a claim it stays as it is, so that
        # what is wrong then is wrong.
        with self.claims.pulling(file.size_bytes for file in record.files):
            record = self.records.read(entity, project, collection, version, selection)
            if record is None:
                return None
            path = self.layout.snapshot(record.snapshot)
            wrong = _wrong(path, record, rehash)
            if not wrong:
                return Committed(record, path)
            self.condemn(record, wrong)
        return None

    def condemn(self, record: VersionRecord, wrong: Sequence[StoredFile]) -> None:
        """Take a snapshot with wrong files out of use, and their blobs if these are wrong too."""
        self.records.forget_snapshot(record.snapshot)
        snapshot = self.layout.snapshot(record.snapshot)
        with storage_errors(f"put the snapshot {record.snapshot[:12]} into quarantine"):
            make_folder(self.layout.quarantine)
            with suppress(FileNotFoundError):
                target = self.layout.quarantine / f"{record.snapshot}.{uuid.uuid4().hex[:8]}"
                os.rename(snapshot, target)
        for file in wrong:
            self.blobs.is_sound(file.sha256, file.size_bytes)

    def commit(
        self,
        version: ArtifactVersion,
        selection: str,
        files: Mapping[str, str],
        skipped: Sequence[Skipped],
        conversion: Conversion | None = None,
    ) -> Committed:
        """Make the version exist, from blobs that are all here.

        Args:
            version: with the manifest's files.
            selection: key of what was chosen from it.
            files: path -> SHA-256.
            skipped: what was left on the server.
            conversion: how the files came from pickled weights, if they did.

        Raises:
            StorageError: the disk refuses; the version does not exist then.
        """
        from registry.store.snapshots import build_snapshot

        digest, path = build_snapshot(self.layout, files)
        with storage_errors(f"look at the snapshot {digest[:12]}"):
            stored = tuple(_stored(path, name, sha256) for name, sha256 in files.items())
        record = VersionRecord(version, stored, tuple(skipped), digest, now_text(), conversion)
        self.records.commit(record, selection)
        return Committed(record, path)

    def take_in(self, source: Path) -> tuple[str, int]:
        """Copy a local file into the store; return its SHA-256 and size in bytes.

        Raises:
            StorageError: it cannot be read or copied.
        """
        import shutil

        from registry.store.blobs import sha256_of

        with storage_errors(f"copy {source} into the cache"):
            make_folder(self.layout.ingest)
            temporary = self.layout.ingest / f"local.{uuid.uuid4().hex}.tmp"
            try:
                with source.open("rb") as read, temporary.open("xb") as write:
                    shutil.copyfileobj(read, write, 1024 * 1024)
                    write.flush()
                    os.fchmod(write.fileno(), 0o444)
                    os.fsync(write.fileno())
                # Hashed after the copy: what is stored is what was hashed.
                sha256, size_bytes = sha256_of(temporary), temporary.stat().st_size
                self.blobs.adopt(temporary, sha256)
            finally:
                temporary.unlink(missing_ok=True)
        return sha256, size_bytes

    def lock(self, version: ArtifactVersion, *, timeout_s: float) -> AbstractContextManager[bool]:
        """Let one process at a time fetch this version, where locks work."""
        import hashlib

        from registry.store.locks import single_flight

        name = f"{self._server}\n{version.qualified_name}"
        file = hashlib.sha256(name.encode()).hexdigest()[:32] + ".lock"
        return single_flight(self.layout.locks / file, timeout_s=timeout_s)

    def census(self) -> Census:
        """Look at everything in the cache; see `registry.store.census`."""
        from registry.store.census import take_census

        return take_census(self.layout, self.claims, self.marks)

    def prune(self, budget: Budget, *, dry_run: bool = False) -> Choice:
        """Make room; see `registry.store.prune`. A dry run only says what would go."""
        from registry.store.prune import look, prune

        act = look if dry_run else prune
        return act(self.layout, self.claims, self.marks, budget)

    def free_bytes(self) -> int:
        """Return how many bytes the cache's disk can still take."""
        import shutil

        with storage_errors("ask for free space"):
            make_folder(self.layout.root)
            return shutil.disk_usage(self.layout.root).free


def _stored(snapshot: Path, name: str, sha256: str) -> StoredFile:
    status = (snapshot / name).lstat()
    return StoredFile(name, status.st_size, sha256, status.st_mtime_ns)


def _wrong(snapshot: Path, record: VersionRecord, rehash: bool) -> list[StoredFile]:
    return [file for file in record.files if not _is_intact(snapshot / file.path, file, rehash)]


def _is_intact(path: Path, file: StoredFile, rehash: bool) -> bool:
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size != file.size_bytes:
            return False
        if status.st_mtime_ns == file.mtime_ns and not rehash:
            return True
        from registry.store.blobs import sha256_of

        return sha256_of(path) == file.sha256
    except OSError:
        return False
