"""The cache as people and servers use it: hold, find by name, pin; no network.

What it does in detail is in `registry.store`.
"""

from __future__ import annotations

from collections.abc import Sequence

from registry.config import Settings
from registry.errors import AmbiguousNameError, IntegrityError, NotFoundError
from registry.pulled import PulledVersion
from registry.reference import ArtifactRef, parse_artifact
from registry.selector import LATEST, Version
from registry.store import Store
from registry.store.census import Entry
from registry.store.claims import Lease
from registry.store.records import VersionRecord

_LISTED = 5
_LOCAL = "local"
_SHORTEST_DIGEST = 8


def open_store(settings: Settings) -> Store:
    """Return the cache that the settings name; nothing is touched yet."""
    return Store(settings.cache_dir, settings.base_url or "")


def hold(
    snapshot: str, *, settings: Settings | None = None, pid: int | None = None
) -> Lease | None:
    """Keep a snapshot and its exports from being pruned while a process lives.

    Args:
        snapshot: digest of a pulled version (`PulledVersion.digest`).
        settings: default: from the environment.
        pid: the process that the lease ends with, however it ends; default: this one.

    Returns:
        The lease; None when the snapshot was pruned meanwhile: pull it again.

    Raises:
        StorageError: the cache cannot be written.
        UnavailableError: a prune does not end.
    """
    return open_store(settings or Settings.from_environment()).claims.hold(snapshot, pid=pid)


def find_entries(store: Store, settings: Settings, name: str) -> list[Entry]:
    """Return the cached entries that a name means, one per choice of files; without the network.

    Args:
        store: the cache.
        settings: defaults of entity and project.
        name: as for `pull` (an alias means what it meant when last heard of), or `@` and the
            first 8 or more digits of a snapshot's digest.

    Raises:
        NotFoundError: it is not in the cache.
        AmbiguousNameError: several snapshots' digests begin so.
        InvalidReferenceError: it is no name.
    """
    entries = store.census().entries
    if name.startswith("@"):
        found = [entry for entry in entries if entry.digest.startswith(name[1:])]
        found = found if len(name) > _SHORTEST_DIGEST else []
        if len(found) > 1:
            shown = ", ".join(f"@{entry.digest[:16]}" for entry in found[:_LISTED])
            raise AmbiguousNameError(f"{name} may be {shown}.", hint="Write more of its digits.")
    else:
        snapshots = {record.snapshot for record in cached_records(store, settings, name)}
        found = [entry for entry in entries if entry.digest in snapshots]
    if not found:
        raise NotFoundError(
            f"{name} is not in the cache.", hint="`registry cache list` shows what is."
        )
    return found


def contents_of(store: Store, pulled: PulledVersion) -> dict[str, str]:
    """Return path -> SHA-256 of the files of a version that was just pulled.

    Raises:
        IntegrityError: it was pruned meanwhile.
    """
    version = pulled.version
    if version.version == _LOCAL:
        return {file.path: file.digest.hex for file in version.files if file.digest}
    records = store.records.of_collection(version.entity, version.project, version.collection)
    for record in records:
        if record.snapshot == pulled.digest:
            return {file.path: file.sha256 for file in record.files}
    raise IntegrityError(
        f"{version.qualified_name} went from the cache while it was used.", hint="Pull it again."
    )


def cached_records(store: Store, settings: Settings, name: str) -> Sequence[VersionRecord]:
    """Return the commits of the version that a name means, one per choice of files.

    Raises:
        InvalidReferenceError: it is no name.
    """
    ref = parse_artifact(name)
    entity = ref.entity or settings.entity or store.records.entity()
    if entity is None:
        return []
    project = ref.project or settings.project
    collection, version = _meaning(store, ref, entity, project)
    return [
        record
        for record in store.records.of_collection(entity, project, collection)
        if record.version.version == version and _has_digest(record, ref)
    ]


def _meaning(store: Store, ref: ArtifactRef, entity: str, project: str) -> tuple[str, str | None]:
    if isinstance(ref.selector, Version):
        collection = store.records.meaning(entity, project, ref.collection)
        return collection, str(ref.selector)
    selector = str(ref.selector or LATEST)
    known = store.records.known(entity, project, ref.collection, selector)
    return (known.collection, known.version) if known else (ref.collection, None)


def _has_digest(record: VersionRecord, ref: ArtifactRef) -> bool:
    found = record.snapshot if ref.names_snapshot else record.version.digest
    return ref.digest is None or found.startswith(ref.digest)
