"""The small JSON files of the store: version records, last known references.

A version exists once its record has been renamed into place, and only then.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import msgspec

from registry.content import Skipped
from registry.store.durable import storage_errors, write_durably
from registry.store.layout import Layout, safe_part
from registry.versions import ArtifactVersion, Conversion

FORMAT = 1
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of a snapshot.

    Attributes:
        path: POSIX path beneath the snapshot.
        size_bytes: length.
        sha256: what it hashed to when it arrived.
        mtime_ns: its time then; another one makes the store hash it again.
    """

    path: str
    size_bytes: int
    sha256: str
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """The commit of one version: what it is and which snapshot holds it.

    Attributes:
        version: as resolved, with the manifest's files.
        files: what the snapshot holds.
        skipped: what was left on the server.
        snapshot: the snapshot's digest.
        committed_at: RFC 3339 time.
        conversion: how the snapshot came from one with pickled weights, if it did.
        format: of this record.
    """

    version: ArtifactVersion
    files: tuple[StoredFile, ...]
    skipped: tuple[Skipped, ...]
    snapshot: str
    committed_at: str
    conversion: Conversion | None = None
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class KnownRef:
    """Where an alias or selector pointed when the server was last asked.

    Attributes:
        collection, version: its target.
        digest: the target's W&B digest.
        seen_at: RFC 3339 time of the answer.
    """

    collection: str
    version: str
    digest: str
    seen_at: str

    def age_s(self, now: datetime.datetime | None = None) -> float:
        """Seconds since the server was asked."""
        now = now or datetime.datetime.now(datetime.UTC)
        return (now - datetime.datetime.fromisoformat(self.seen_at)).total_seconds()


@dataclass(frozen=True, slots=True)
class _Text:
    value: str


def now_text() -> str:
    """Return the present time in RFC 3339."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


class Records:
    """Version records and references of one server.

    Args:
        layout: where the cache lies.
        server: the W&B server's address; names of different servers never mix.
    """

    def __init__(self, layout: Layout, server: str) -> None:
        self._layout = layout
        self._server = server

    def read(
        self, entity: str, project: str, collection: str, version: str, selection: str
    ) -> VersionRecord | None:
        """Return the record, or None if the version was not committed."""
        record = _read(self._path(entity, project, collection, version, selection), VersionRecord)
        if record is None or record.format != FORMAT or record.version.version != version:
            return None
        return record

    def commit(self, record: VersionRecord, selection: str) -> None:
        """Make the version exist.

        Raises:
            StorageError: the disk refuses; the version does not exist then.
        """
        v = record.version
        path = self._path(v.entity, v.project, v.collection, v.version, selection)
        with storage_errors(f"commit {v.qualified_name}"):
            write_durably(path, msgspec.json.encode(record))

    def forget_snapshot(self, snapshot: str) -> None:
        """Remove every record, of this server, that rests on the snapshot."""
        for path, record in self._all():
            if record.snapshot == snapshot:
                path.unlink(missing_ok=True)

    def all(self) -> list[VersionRecord]:
        """Return all records of this server."""
        return [record for _, record in self._all()]

    def of_collection(self, entity: str, project: str, collection: str) -> list[VersionRecord]:
        """Return the records of one collection."""
        folder = self._layout.collection_records(self._server, entity, project, collection)
        found = (_read(path, VersionRecord) for path in sorted(folder.glob("*.json")))
        return [record for record in found if record is not None]

    def _all(self) -> Iterator[tuple[Path, VersionRecord]]:
        for path in sorted(self._layout.collection_records(self._server).rglob("*.json")):
            record = _read(path, VersionRecord)
            if record is not None:
                yield path, record

    def _path(
        self, entity: str, project: str, collection: str, version: str, selection: str
    ) -> Path:
        folder = self._layout.collection_records(self._server, entity, project, collection)
        return folder / f"{safe_part(version)}.{safe_part(selection)}.json"

    def remember(
        self, entity: str, project: str, written: str, selector: str, ref: KnownRef
    ) -> None:
        """Keep where `written:selector` points now."""
        path = self._layout.collection_refs(self._server, entity, project, written)
        with storage_errors(f"remember {written}:{selector}"):
            write_durably(path / f"{safe_part(selector)}.json", msgspec.json.encode(ref))

    def known(self, entity: str, project: str, written: str, selector: str) -> KnownRef | None:
        """Return where `written:selector` pointed when the server was last asked."""
        path = self._layout.collection_refs(self._server, entity, project, written)
        return _read(path / f"{safe_part(selector)}.json", KnownRef)

    def remember_meaning(self, entity: str, project: str, written: str, collection: str) -> None:
        """Keep that the name `written` means `collection`."""
        self._remember_text((entity, project, written), ".means.json", collection)

    def meaning(self, entity: str, project: str, written: str) -> str:
        """Return the collection that `written` was last found to mean; itself if unknown."""
        return self._text((entity, project, written), ".means.json") or written

    def remember_entity(self, entity: str) -> None:
        """Keep the account's default entity."""
        if self._text((), ".entity.json") != entity:
            self._remember_text((), ".entity.json", entity)

    def entity(self) -> str | None:
        """Return the account's default entity as last heard."""
        return self._text((), ".entity.json")

    # No name that `safe_part` returns begins with a dot, so these cannot clash.
    def _remember_text(self, names: tuple[str, ...], file: str, value: str) -> None:
        with storage_errors("write a reference"):
            folder = self._layout.collection_refs(self._server, *names)
            write_durably(folder / file, msgspec.json.encode(_Text(value)))

    def _text(self, names: tuple[str, ...], file: str) -> str | None:
        text = _read(self._layout.collection_refs(self._server, *names) / file, _Text)
        return text.value if text else None


def every_record(layout: Layout) -> Iterator[tuple[Path, VersionRecord]]:
    """Yield all readable records of all servers with their files; these may go meanwhile."""
    for path in sorted(layout.versions.rglob("*.json")):
        record = _read(path, VersionRecord)
        if record is not None:
            yield path, record


def with_aliases(record: VersionRecord, aliases: tuple[str, ...]) -> ArtifactVersion:
    """Return the recorded version with the aliases that it has now."""
    return replace(record.version, aliases=aliases)


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        _warn("cannot read %s: %s", path, error)
        return None
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        # Damaged by the disk or written by another release: as if it were not
        # there, so that the next pull writes it again.
        _warn("ignoring the damaged record %s: %s", path, error)
        return None


def _warn(message: str, path: Path, error: Exception) -> None:
    import logging  # Here: a warm pull reads records, and has nothing to warn of.

    logging.getLogger(__name__).warning(message, path, error)
