"""Pull: from a name to verified files in the cache.

    parse ─► known and pinned? ─► done, without a question to anybody
               │ no
             resolve ─► committed? ─► done, nothing fetched
               │ no
             plan ─► fetch ─► check ─► snapshot ─► record (the commit)

Imports the SDK (through `registry.hub`) only when the server has to be asked.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from registry.config import Settings
from registry.content import Plan, Selection, Skipped, check_content, plan_files
from registry.errors import (
    IntegrityError,
    NotFoundError,
    OfflineError,
    StorageError,
    UsageError,
)
from registry.pulled import PulledVersion
from registry.reference import ArtifactRef, parse_reference
from registry.selector import LATEST, Version
from registry.store import Committed, Store
from registry.store.records import KnownRef, VersionRecord, now_text
from registry.versions import ArtifactVersion, FileEntry

if TYPE_CHECKING:
    from registry.hub import Hub
    from registry.references.fetch import Fetched
    from registry.retry import Limits
    from registry.transfer import Progress

LOCK_TIMEOUT_S = 600.0
"""How long to wait for another process that fetches the same version."""

_DISK_RESERVE_BYTES = 16 * 1024 * 1024


def pull(
    reference: str,
    *,
    settings: Settings | None = None,
    progress: Progress | None = None,
    selection: Selection | None = None,
    verify: bool = False,
    refresh: bool = False,
    base: str | None = None,
    hub: Hub | None = None,
    limits: Limits | None = None,
) -> PulledVersion:
    """Fetch a version into the cache, or find it there; an adapter with its base model.

    Args:
        reference: `run-bert:v0`, `entity/project/name:alias`, a W&B address, `./folder`.
        settings: default: from the environment.
        progress: hears of bytes.
        selection: which files; default: those needed to serve. Pickled weights that it (or the
            settings) allow come back converted to safetensors, under a digest of their own.
        verify: hash cached files again instead of comparing size and time.
        refresh: ask the server even for a pinned version that is cached.
        base: of a PEFT adapter: the base model's reference or folder; default: the settings',
            else what is recorded. An adapter whose files are chosen by `selection` stays alone.
        hub: default: W&B through its SDK.
        limits: waits, retries and parallelism of the download.

    Raises:
        InvalidReferenceError, NotFoundError, AmbiguousNameError: the name.
        AuthError, UnavailableError, OfflineError, StorageError: server, network, disk.
        IntegrityError, UnsafeContentError: the bytes; UsageError: a base for no adapter.
        ConversionError: pickled weights cannot be converted here.
    """
    from registry.adapter import AdapterPull, is_adapter
    from registry.local import take_in_folder

    began_s = time.monotonic()
    settings, chosen = settings or Settings.from_environment(), selection or Selection()
    chosen = replace(chosen, allow_pickle=chosen.allow_pickle or settings.allow_pickle)
    store = Store(settings.cache_dir, settings.base_url or "")

    def alone(text: str) -> PulledVersion:
        parsed = parse_reference(text)
        if isinstance(parsed, ArtifactRef):
            job = _Pull(store, settings, parsed, chosen, verify)
            known = None if refresh else job.without_server()
            pulled = known or job.with_server(hub, progress, limits)
            _check_digest(parsed, pulled)
        else:
            pulled = take_in_folder(store, Path(parsed.path), chosen)
        return _marked(store, pulled, chosen, verify)

    pulled = alone(reference)
    if chosen.whole and is_adapter(pulled.path):
        inputs = partial(_inputs, settings=settings, hub=hub)
        pulled = AdapterPull(store, alone, inputs, verify).complete(pulled, base or settings.base)
    elif base is not None:
        raise _no_adapter(pulled)
    return replace(pulled, seconds=time.monotonic() - began_s)


def _no_adapter(pulled: PulledVersion) -> UsageError:
    return UsageError(
        f"{pulled.version.short_name} is no adapter; it needs no base model.",
        hint="Leave --base out.",
    )


def _marked(
    store: Store, pulled: PulledVersion, selection: Selection, verify: bool
) -> PulledVersion:
    """Note that the version was used, and convert its pickles where that is allowed."""
    store.marks.touch(pulled.digest)
    if not selection.allow_pickle or selection.everything:
        return pulled
    from registry.cache import contents_of
    from registry.convert.convert import Converter, has_pickles

    if not has_pickles(pulled):
        return pulled
    converter = Converter(store, selection, verify)
    converted = converter.convert(pulled, contents_of(store, pulled))
    store.marks.touch(converted.digest)
    return converted


def pull_cached(reference: str, settings: Settings) -> PulledVersion | None:
    """Return a version that needs no server and no base model, None for any other.

    Loads only what this takes; `pull` gives the same answer for it.

    Raises:
        RegistryError: as `pull`.
    """
    began_s = time.monotonic()
    parsed = parse_reference(reference)
    if not isinstance(parsed, ArtifactRef):
        return None
    store = Store(settings.cache_dir, settings.base_url or "")
    pulled = _Pull(store, settings, parsed, Selection(), verify=False).without_server()
    if pulled is None or (pulled.path / "adapter_config.json").exists():
        return None
    _check_digest(parsed, pulled)
    store.marks.touch(pulled.digest)
    return replace(pulled, seconds=time.monotonic() - began_s)


def _inputs(
    version: ArtifactVersion, settings: Settings, hub: Hub | None
) -> Sequence[ArtifactVersion]:
    if settings.offline:
        return ()
    from registry.hub import WandbHub

    return (hub or WandbHub(settings)).inputs(version)


def _check_digest(ref: ArtifactRef, pulled: PulledVersion) -> None:
    found = pulled.digest if ref.names_snapshot else pulled.version.digest
    logged = pulled.conversion.snapshot if pulled.conversion and ref.names_snapshot else found
    if ref.digest and not (found.startswith(ref.digest) or logged.startswith(ref.digest)):
        raise IntegrityError(
            f"{pulled.version.qualified_name} has the digest {found}, not {ref.digest}.",
            hint="The name points at other bytes than you asked for.",
        )


@dataclass(frozen=True, slots=True)
class _Pull:
    """One pull of a name on a server."""

    store: Store
    settings: Settings
    ref: ArtifactRef
    selection: Selection
    verify: bool

    def without_server(self) -> PulledVersion | None:
        """Answer from the cache: a pinned version always, an alias only offline."""
        pinned = isinstance(self.ref.selector, Version)
        if not pinned and not self.settings.offline:
            return None
        entity = self.ref.entity or self.settings.entity or self.store.records.entity()
        project = self.ref.project or self.settings.project
        if entity is not None:
            found = self._pinned(entity, project) if pinned else self._last_known(entity, project)
            if found is not None:
                return found
        if self.settings.offline:
            raise OfflineError(
                f"{self.ref} is not in the cache, and offline mode forbids asking for it.",
                hint="Pull it once with a network, or unset RUNPORT_OFFLINE.",
            )
        return None

    def _pinned(self, entity: str, project: str) -> PulledVersion | None:
        names = self.store.records
        collection = names.meaning(entity, project, self.ref.collection)
        found = self._find(entity, project, collection, str(self.ref.selector))
        return _cached(found, found.record.version) if found else None

    def _last_known(self, entity: str, project: str) -> PulledVersion | None:
        selector = str(self.ref.selector or LATEST)
        known = self.store.records.known(entity, project, self.ref.collection, selector)
        if known is None:
            return None
        found = self._find(entity, project, known.collection, known.version)
        if found is None:
            return None
        return replace(_cached(found, found.record.version), known_at=known.seen_at)

    def _find(self, entity: str, project: str, collection: str, version: str) -> Committed | None:
        for key in self.selection.keys:
            found = self.store.find(entity, project, collection, version, key, rehash=self.verify)
            if found is not None:
                return found
        return None

    def with_server(
        self, hub: Hub | None, progress: Progress | None, limits: Limits | None
    ) -> PulledVersion:
        """Resolve, and fetch what is not here yet."""
        from registry.hub import WandbHub
        from registry.resolve import place_of, resolve_version

        hub = hub or WandbHub(self.settings)
        place = place_of(self.ref, self.settings, hub)
        version = resolve_version(hub, self.ref, place)
        self._remember(place.entity, place.project, version)
        found = self._same(version)
        if found is not None:
            return _cached(found, version)
        with self.store.lock(version, timeout_s=LOCK_TIMEOUT_S):
            found = self._same(version)  # Perhaps another process has just fetched it.
            if found is not None:
                return _cached(found, version)
            return self._fetch(hub, version, progress, limits)

    def _same(self, version: ArtifactVersion) -> Committed | None:
        found = self._find(version.entity, version.project, version.collection, version.version)
        if found is not None and found.record.version.digest == version.digest:
            return found
        return None

    def _remember(self, entity: str, project: str, version: ArtifactVersion) -> None:
        known = KnownRef(version.collection, version.version, version.digest, now_text())
        written, selector = self.ref.collection, str(self.ref.selector or LATEST)
        # A cache that cannot be written does not keep the answer from being used;
        # the commit itself does fail.
        with suppress(StorageError):
            records = self.store.records
            if self.ref.entity is None and self.settings.entity is None:
                records.remember_entity(entity)
            records.remember(entity, project, written, selector, known)
            if written != version.collection:
                records.remember_meaning(entity, project, written, version.collection)

    def _fetch(
        self,
        hub: Hub,
        version: ArtifactVersion,
        progress: Progress | None,
        limits: Limits | None,
    ) -> PulledVersion:
        files = hub.files(version)
        name = version.qualified_name
        from registry.references.fetch import fetched_references, parse_allowed

        allowed = parse_allowed(self.settings.allow_references)
        plan = plan_files(name, files, self.selection, allowed)
        if not plan.wanted:
            raise NotFoundError(
                f"{name} holds no file that was asked for.", hint=_left_out(plan.skipped)
            )
        version = replace(version, files=files)
        references = [file for file in plan.wanted if file.reference]
        # What is found here now, or arrives, must still be here at the commit.
        with (
            fetched_references(self.store, references, allowed) as elsewhere,
            self.store.claims.pulling(file.size_bytes for file in plan.wanted),
        ):
            return self._fetch_planned(hub, version, plan, elsewhere, progress, limits)

    def _fetch_planned(
        self,
        hub: Hub,
        version: ArtifactVersion,
        plan: Plan,
        elsewhere: Fetched,
        progress: Progress | None,
        limits: Limits | None,
    ) -> PulledVersion:
        name = version.qualified_name
        here = elsewhere.files | {
            file.path: sha256
            for file in plan.wanted
            if file.digest and (sha256 := self.store.blobs.find(file.digest, file.size_bytes))
        }
        missing = [file for file in plan.wanted if file.path not in here]
        fetched_bytes = self._download(hub, version, missing, here, progress, limits)
        fetched_bytes += elsewhere.fetched_bytes
        for path, sha256 in here.items():
            check_content(name, path, self.store.layout.blob(sha256))
        pickled = plan.pickles and not self.selection.everything
        key = self.selection.pickled_key if pickled else self.selection.key
        committed = self.store.commit(version, key, here, plan.skipped)
        return PulledVersion(
            version,
            committed.path,
            committed.record.snapshot,
            cached=not fetched_bytes,
            fetched_bytes=fetched_bytes,
            seconds=0.0,
            skipped=plan.skipped,
        )

    def _download(
        self,
        hub: Hub,
        version: ArtifactVersion,
        missing: list[FileEntry],
        here: dict[str, str],
        progress: Progress | None,
        limits: Limits | None,
    ) -> int:
        if not missing:
            return 0
        from registry.retry import Limits as DefaultLimits
        from registry.transfer import Book, Silent, Transfer

        total_bytes = sum(file.size_bytes for file in missing)
        self._check_space(total_bytes)
        # Files with the same bytes are fetched once.
        unique = {(f.digest, f.size_bytes): f for f in reversed(missing)}
        arrived: dict[tuple[object, int], str] = {}
        transfer = Transfer(
            Book(lambda paths: hub.addresses(version, paths), [f.path for f in unique.values()]),
            self.store.ingest,
            _Accept(self.store, arrived),
            progress or Silent(),
            limits or DefaultLimits(),
        )
        progress = progress or Silent()
        progress.started(version.short_name, sum(f.size_bytes for f in unique.values()))
        try:
            transfer.run(list(unique.values()))
        finally:
            progress.finished()
        here.update({f.path: arrived[f.digest, f.size_bytes] for f in missing})
        return transfer.fetched_bytes

    def _check_space(self, needed_bytes: int) -> None:
        free_bytes = self.store.free_bytes()
        if free_bytes < needed_bytes + _DISK_RESERVE_BYTES:
            raise StorageError(
                f"{needed_bytes} bytes are needed, {free_bytes} are free in "
                f"{self.settings.cache_dir}.",
                hint="Free space, or point RUNPORT_CACHE_DIR at another disk.",
            )


@dataclass(frozen=True, slots=True)
class _Accept:
    """Turns finished files into blobs and remembers what they hash to."""

    store: Store
    arrived: dict[tuple[object, int], str]

    def __call__(self, entry: FileEntry, partial: object, sha256: str) -> None:
        from registry.store.ingest import Partial

        if entry.digest is not None and isinstance(partial, Partial):
            self.store.blobs.accept(partial, entry.digest, sha256)
            self.arrived[entry.digest, entry.size_bytes] = sha256


def _cached(found: Committed, now: ArtifactVersion) -> PulledVersion:
    """Return a cached version, with the mutable facts as they are now."""
    record: VersionRecord = found.record
    version = replace(record.version, aliases=now.aliases, metadata=now.metadata)
    return PulledVersion(
        version,
        found.path,
        record.snapshot,
        cached=True,
        fetched_bytes=0,
        seconds=0.0,
        skipped=record.skipped,
        conversion=record.conversion,
    )


def _left_out(skipped: tuple[Skipped, ...]) -> str:
    reasons: Mapping[str, str] = {file.path: file.reason for file in skipped}
    shown = [f"{path} ({reason})" for path, reason in list(reasons.items())[:5]]
    return f"Left out: {', '.join(shown)}." if shown else "The version is empty."
