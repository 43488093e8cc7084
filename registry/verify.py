"""Verify: hash what is cached again, take what is wrong out of use, and fetch it again.

A snapshot is right when the digest over its files is its name. What is wrong is moved
into quarantine, never deleted; a version is then pulled again under the same choice of
files, unless offline mode forbids it.
"""

from __future__ import annotations

import glob
import os
import uuid
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from registry.cache import find_entries, open_store
from registry.config import Settings
from registry.content import Selection
from registry.errors import RegistryError
from registry.export.store import is_intact, read_export
from registry.pull import pull
from registry.store import Store
from registry.store.blobs import sha256_of
from registry.store.census import Entry
from registry.store.durable import make_folder, storage_errors
from registry.store.records import VersionRecord, every_record
from registry.store.snapshots import snapshot_digest

if TYPE_CHECKING:
    from registry.hub import Hub
    from registry.retry import Limits


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that was not what it should be; it is in quarantine now.

    Attributes:
        kind: `version`, `export` or `blob`.
        name: of the version, export or blob.
        files: that were wrong, missing or too many.
        repaired: whether all is as it should be now. An export or a blob is only removed: it
            is made or fetched again when it is needed.
        detail: in a sentence.
    """

    kind: str
    name: str
    files: tuple[str, ...]
    repaired: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Verified:
    """What was looked at and what was wrong.

    Attributes:
        versions, exports, files: how many were hashed.
        size_bytes: of these files.
        problems: empty when all was right.
    """

    versions: int
    exports: int
    files: int
    size_bytes: int
    problems: tuple[Problem, ...]

    @property
    def sound(self) -> bool:
        """Whether all is as it should be now."""
        return all(problem.repaired for problem in self.problems)


def verify(
    names: Sequence[str] = (),
    *,
    settings: Settings | None = None,
    hub: Hub | None = None,
    limits: Limits | None = None,
) -> Verified:
    """Hash cached versions, their exports and, without names, everything else as well.

    Args:
        names: as for `find_entries`; empty: the whole cache.
        settings: default: from the environment; `offline` repairs nothing.
        hub: default: W&B through its SDK.
        limits: waits and retries of a download.

    Raises:
        NotFoundError, AmbiguousNameError: a name.
        StorageError: the cache cannot be read or written.
    """
    settings = settings or Settings.from_environment()
    work = _Verifying(open_store(settings), settings, hub, limits)
    if names:
        entries = [e for name in names for e in find_entries(work.store, settings, name)]
    else:
        entries = list(work.store.census().entries)
    for entry in entries:
        # What is being hashed is in use: a prune leaves it alone meanwhile.
        with work.store.claims.hold(entry.digest) or nullcontext():
            work.exports(entry)
            work.version(entry)
    if not names:
        work.blobs()
    return work.outcome()


class _Verifying:
    def __init__(
        self, store: Store, settings: Settings, hub: Hub | None, limits: Limits | None
    ) -> None:
        self.store = store
        self._settings = settings
        self._hub = hub
        self._limits = limits
        self._hashed: dict[tuple[int, int], str] = {}
        self._versions = 0
        self._exports = 0
        self._size_bytes = 0
        self._problems: list[Problem] = []

    def outcome(self) -> Verified:
        return Verified(
            self._versions,
            self._exports,
            len(self._hashed),
            self._size_bytes,
            tuple(self._problems),
        )

    def version(self, entry: Entry) -> None:
        records = [
            (path, record) for path, record in every_record(self.store.layout)
            if record.snapshot == entry.digest
        ]  # fmt: skip
        folder = self.store.layout.snapshot(entry.digest)
        if not records and not folder.is_dir():
            return
        self._versions += 1
        found = self._hash_folder(folder)
        if found and snapshot_digest(found) == entry.digest:
            return
        wrong = _wrong_files(found, [record for _, record in records])
        for path, _ in records:
            path.unlink(missing_ok=True)
        self._quarantine(folder)
        for _, record in records:
            for file in record.files:
                if file.path in wrong:
                    self.store.blobs.is_sound(file.sha256, file.size_bytes)
        if not records:
            detail = "Taken in from a local folder; it is taken in again when it is needed."
            self._problems.append(Problem("version", entry.title, wrong, True, detail))
        for path, record in records:
            self._problems.append(self._repair(path, record, wrong))

    def exports(self, entry: Entry) -> None:
        for path in entry.exports:
            export = read_export(path) if path.is_dir() else None
            if export is None and path.is_file():
                continue  # The report of a refused export.
            self._exports += 1
            if export is not None and is_intact(export):
                continue
            self._quarantine(path)
            wrong = () if export is None else tuple(
                file.name for file in export.files if not _is_right(path / file.name, file.sha256)
            )  # fmt: skip
            self._problems.append(
                Problem("export", path.name, wrong, True, "It is made again when it is needed.")
            )

    def blobs(self) -> None:
        for sha256 in self.store.census().blobs:
            path = self.store.layout.blob(sha256)
            with suppress(FileNotFoundError):
                if self._hash(path) == sha256:
                    continue
            self.store.blobs.quarantine(path)
            self._problems.append(
                Problem("blob", sha256, (), True, "It is fetched again when it is needed.")
            )

    def _repair(self, path: Path, record: VersionRecord, wrong: tuple[str, ...]) -> Problem:
        name = record.version.qualified_name

        def problem(repaired: bool, detail: str) -> Problem:
            return Problem("version", name, wrong, repaired, detail)

        if self._settings.offline:
            return problem(False, "Offline: pull it again when there is a network.")
        here = self.store.layout.collection_records(self._settings.base_url or "")
        if here not in path.parents:
            return problem(False, "It is another server's: set WANDB_BASE_URL and pull it again.")
        key = unquote(path.stem.partition(".")[2])
        if key.startswith("pickled"):
            return problem(True, "It is fetched again when its weights have to be converted again.")
        detail = "The server, or an adapter's base model, has other bytes now."
        fetched_bytes = 0
        try:
            fetched_bytes = pull(
                f"{name}@{record.version.digest}",
                settings=self._settings,
                selection=_selection(key, record),
                # What it is made of may be damaged as well, and not be looked at yet.
                verify=True,
                hub=self._hub,
                limits=self._limits,
            ).fetched_bytes
        except RegistryError as error:
            detail = f"It could not be pulled again: {error.message}"
        if self._is_back(record, key):
            return problem(True, f"Pulled again, {fetched_bytes} bytes.")
        return problem(False, detail)

    def _is_back(self, record: VersionRecord, key: str) -> bool:
        """Whether the version is committed again, with the bytes that it had."""
        version = record.version
        names = (version.entity, version.project, version.collection, version.version)
        again = self.store.records.read(*names, key)
        if again is None:
            # Patterns cannot be read back from their key: the files were pulled by
            # name, and are committed under the key that the patterns have.
            chosen = _selection(key, record)
            committed_as = chosen.converted_key if record.conversion else chosen.key
            again = self.store.records.read(*names, committed_as)
            if again is not None and again.snapshot == record.snapshot:
                self.store.records.commit(again, key)
        return again is not None and again.snapshot == record.snapshot

    def _hash_folder(self, folder: Path) -> dict[str, str]:
        with storage_errors(f"read {folder}"):
            paths = [p for p in sorted(folder.rglob("*")) if p.is_symlink() or not p.is_dir()]
            return {path.relative_to(folder).as_posix(): self._hash(path) for path in paths}

    def _hash(self, path: Path) -> str:
        status = path.lstat()
        inode = (status.st_dev, status.st_ino)
        if inode not in self._hashed:
            # A snapshot's file is its blob, where hard links work: hashed once.
            self._hashed[inode] = "" if path.is_symlink() else sha256_of(path)
            self._size_bytes += status.st_size
        return self._hashed[inode]

    def _quarantine(self, path: Path) -> None:
        target = self.store.layout.quarantine / f"{path.name[:64]}.{uuid.uuid4().hex[:8]}"
        with storage_errors(f"put {path.name} into quarantine"):
            make_folder(target.parent)
            with suppress(FileNotFoundError):
                os.rename(path, target)


def _wrong_files(found: dict[str, str], records: Sequence[VersionRecord]) -> tuple[str, ...]:
    if not records:
        return ()
    right = {file.path: file.sha256 for file in records[0].files}
    return tuple(
        sorted(path for path in right.keys() | found.keys() if right.get(path) != found.get(path))
    )


def _is_right(path: Path, sha256: str) -> bool:
    try:
        return sha256_of(path) == sha256
    except OSError:
        return False


def _selection(key: str, record: VersionRecord) -> Selection:
    # `with-<digest>` is an adapter with its base model, which a plain pull completes.
    if key in {"serve", "all"} or key.startswith("with-"):
        return Selection(everything=key == "all")
    if record.conversion is not None:
        # Its own files are what the pickles became; those that it came from are pulled.
        skipped = {file.path for file in record.skipped}
        kept = [file.path for file in record.version.files if file.path not in skipped]
        usual = key == Selection().converted_key
        include = () if usual else tuple(map(glob.escape, kept))
        return Selection(include=include, allow_pickle=True)
    return Selection(everything=True, include=tuple(glob.escape(f.path) for f in record.files))
