"""What lies in a cache: versions with their exports, left-overs, rubbish; reads, changes nothing.

An *entry* is a snapshot with its records and exports; it is kept or removed as a whole. A
*left-over* may save a later pull work (a partial file, a blob of no snapshot) or somebody an
investigation (quarantine). *Rubbish* is of no use to anybody.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from registry.store.claims import Claims
from registry.store.durable import storage_errors
from registry.store.ingest import is_idle
from registry.store.layout import EXPORT_DIGITS, Layout
from registry.store.marks import Marks
from registry.store.owners import is_gone
from registry.store.records import VersionRecord, every_record

TUNED = "tuned"
"""Folder of what `registry.tuning` keeps; its names begin like those of exports."""

_TEMPORARY_S = 3600.0
_STAGING_S = 6 * 3600.0
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class Entry:
    """A snapshot and all that rests on it.

    Attributes:
        digest: of the snapshot; for exports that outlived theirs, the digits in their names.
        names: pinned names of its versions; empty for a local folder.
        records: the files that commit these.
        contents: what it is made of: key of the bytes -> size in bytes.
        exports: folders of exports, reports of refused ones, and what tuning measured.
        exports_bytes: their size.
        last_used_s: Unix time.
        pinned: kept until it is unpinned.
        held: a running server needs it.
    """

    digest: str
    names: tuple[str, ...]
    records: tuple[Path, ...]
    contents: Mapping[str, int]
    exports: tuple[Path, ...]
    exports_bytes: int
    last_used_s: float
    pinned: bool
    held: bool

    @property
    def title(self) -> str:
        """How people know it."""
        return ", ".join(self.names) or f"@{self.digest[:12]}"

    @property
    def size_bytes(self) -> int:
        """Bytes of files and exports; other entries may share some."""
        return sum(self.contents.values()) + self.exports_bytes


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that no entry needs.

    Attributes:
        kind: `partial`, `blob`, `quarantine`, or for rubbish `temporary`, `lease`, `trash`.
        path: a file or folder.
        size_bytes: all of it.
        last_used_s: Unix time when it was written.
    """

    kind: str
    path: Path
    size_bytes: int
    last_used_s: float


@dataclass(frozen=True, slots=True)
class Census:
    """All that lies in a cache.

    Attributes:
        entries: least recently used first.
        leftovers: oldest first.
        rubbish: safe to remove at any time.
        busy_bytes: partial files that a living pull writes.
        blobs: SHA-256 -> size in bytes, of all blobs.
    """

    entries: tuple[Entry, ...]
    leftovers: tuple[Leftover, ...]
    rubbish: tuple[Leftover, ...]
    busy_bytes: int
    blobs: Mapping[str, int]

    @property
    def versions_bytes(self) -> int:
        """Bytes of all snapshots, those that are shared counted once."""
        contents: dict[str, int] = {}
        for entry in self.entries:
            contents.update(entry.contents)
        return sum(contents.values())

    @property
    def exports_bytes(self) -> int:
        """Bytes of all exports."""
        return sum(entry.exports_bytes for entry in self.entries)

    @property
    def leftovers_bytes(self) -> int:
        """Bytes of left-overs, rubbish and partial files at work."""
        return sum(item.size_bytes for item in (*self.leftovers, *self.rubbish)) + self.busy_bytes

    @property
    def total_bytes(self) -> int:
        """Bytes of everything."""
        return self.versions_bytes + self.exports_bytes + self.leftovers_bytes


def take_census(layout: Layout, claims: Claims, marks: Marks) -> Census:
    """Look at everything in the cache.

    Raises:
        StorageError: it cannot be read.
    """
    with storage_errors(f"look through {layout.root}"):
        blobs, inodes = _blobs(layout)
        entries = _entries(layout, claims, marks, inodes)
        needed = {key for entry in entries for key in entry.contents}
        loose = [
            Leftover("blob", layout.blob(sha256), size_bytes, _time_s(layout.blob(sha256)))
            for sha256, size_bytes in blobs.items()
            if sha256 not in needed
        ]
        partials, busy_bytes = _partials(layout)
        spoiled = [_leftover("quarantine", path) for path in _children(layout.quarantine)]
        rubbish = [
            *(_leftover("temporary", path) for path in _temporaries(layout, claims)),
            *(_leftover("lease", path) for path in claims.dead()),
            *(_leftover("trash", path) for path in _trash(layout)),
        ]
    return Census(
        entries=tuple(sorted(entries, key=lambda entry: entry.last_used_s)),
        leftovers=tuple(sorted([*partials, *loose, *spoiled], key=lambda item: item.last_used_s)),
        rubbish=tuple(rubbish),
        busy_bytes=busy_bytes,
        blobs=blobs,
    )


def _blobs(layout: Layout) -> tuple[dict[str, int], dict[tuple[int, int], str]]:
    sizes: dict[str, int] = {}
    inodes: dict[tuple[int, int], str] = {}
    for path in _files(layout.blobs):
        if not _DIGEST.match(path.name):
            continue
        with suppress(FileNotFoundError):
            status = path.lstat()
            sizes[path.name] = status.st_size
            inodes[status.st_dev, status.st_ino] = path.name
    return sizes, inodes


def _entries(
    layout: Layout, claims: Claims, marks: Marks, inodes: Mapping[tuple[int, int], str]
) -> list[Entry]:
    records: dict[str, list[tuple[Path, VersionRecord]]] = {}
    for path, record in every_record(layout):
        records.setdefault(record.snapshot, []).append((path, record))
    snapshots = {path.name for path in _children(layout.snapshots) if _DIGEST.match(path.name)}
    exports: dict[str, list[Path]] = {}
    for path in (*_children(layout.exports), *_children(layout.root / TUNED)):
        exports.setdefault(path.name.split("-", 1)[0], []).append(path)
    exports = {digits: paths for digits, paths in exports.items() if len(digits) == EXPORT_DIGITS}
    digests = snapshots | records.keys()
    # Exports outlive their snapshot only when something else removed it.
    digests |= exports.keys() - {digest[:EXPORT_DIGITS] for digest in digests}
    pins, held = marks.pins(), claims.held()
    found = []
    for digest in digests:
        own = records.get(digest, [])
        made = exports.get(digest[:EXPORT_DIGITS], [])
        folder = layout.snapshot(digest)
        times_s = [_time_s(path) for path in (*(path for path, _ in own), folder, *made)]
        found.append(
            Entry(
                digest=digest,
                names=tuple(sorted({record.version.qualified_name for _, record in own})),
                records=tuple(path for path, _ in own),
                contents=_contents(folder, [record for _, record in own], inodes),
                exports=tuple(made),
                exports_bytes=sum(_size_bytes(path) for path in made),
                last_used_s=marks.last_used_s(digest) or max(times_s),
                pinned=digest in pins,
                held=digest in held,
            )
        )
    return found


def _contents(
    folder: Path, records: list[VersionRecord], inodes: Mapping[tuple[int, int], str]
) -> dict[str, int]:
    """Return key -> size; the key is the SHA-256 where it is known, since a blob shares bytes."""
    known = {file.path: file.sha256 for record in records for file in record.files}
    contents: dict[str, int] = {}
    for path in _files(folder):
        with suppress(FileNotFoundError):
            status = path.lstat()
            inode = (status.st_dev, status.st_ino)
            key = inodes.get(inode) or known.get(path.relative_to(folder).as_posix())
            contents[key or f"{inode[0]}:{inode[1]}"] = status.st_size
    return contents


def _partials(layout: Layout) -> tuple[list[Leftover], int]:
    paths = [path for path in _children(layout.ingest) if path.suffix == ".part"]
    idle = [path for path in paths if is_idle(path)]
    busy_bytes = sum(_size_bytes(path) for path in set(paths) - set(idle))
    return [_leftover("partial", path) for path in idle], busy_bytes


def _temporaries(layout: Layout, claims: Claims) -> Iterator[Path]:
    """Yield what a process that was killed left half written."""
    now_s = time.time()
    # Snapshots are filled, and local files copied, under a claim.
    age_s = _TEMPORARY_S if claims.pulls() else 0.0
    for path in (*layout.ingest.glob("*.tmp"), *layout.snapshots.glob(".*.tmp")):
        if now_s - _time_s(path) >= age_s:
            yield path
    for folder in ("blobs", "digests", "versions", "refs", "pins", "exports", TUNED, "leases"):
        for path in (layout.root / folder).rglob(".*.tmp"):
            if now_s - _time_s(path) >= _TEMPORARY_S:
                yield path
    for path in layout.exports.glob(".staging-*"):
        if now_s - _time_s(path) >= _STAGING_S:
            yield path


def _trash(layout: Layout) -> Iterator[Path]:
    for path in _children(layout.trash):
        if is_gone(".".join(path.name.split(".")[:3]), _time_s(path)):
            yield path


def _leftover(kind: str, path: Path) -> Leftover:
    return Leftover(kind, path, _size_bytes(path), _time_s(path))


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder / name for name in os.listdir(folder) if not name.startswith("."))
    except FileNotFoundError:
        return []


def _files(folder: Path) -> Iterator[Path]:
    for root, _, names in os.walk(folder):
        yield from (Path(root, name) for name in names)


def _size_bytes(path: Path) -> int:
    total = 0
    for file in (path, *path.rglob("*")) if path.is_dir() and not path.is_symlink() else (path,):
        with suppress(FileNotFoundError):
            if not file.is_dir() or file.is_symlink():
                total += file.lstat().st_size
    return total


def _time_s(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return 0.0
