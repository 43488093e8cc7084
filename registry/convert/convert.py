"""A pulled version with pickled weights becomes the same version with safetensors.

    snapshot as logged ─► child ─► files in ingest/ ─► blobs ─► converted snapshot ─► record

Made once: the note under the snapshot's digest finds it again, for whatever version has the
same bytes. Nothing is visible before all of it is right.
"""

from __future__ import annotations

import itertools
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from registry.content import Selection, is_convertible
from registry.convert.messages import ConvertRequest, Done, FileJob
from registry.convert.process import run_child
from registry.convert.targets import (
    Target,
    choose_targets,
    index_target,
    is_index,
    rewrite_index,
)
from registry.errors import ConversionError, UnavailableError
from registry.pulled import PulledVersion
from registry.store import Store
from registry.store.blobs import sha256_of
from registry.store.conversions import (
    ConvertedSnapshot,
    known_conversion,
    remember_conversion,
)
from registry.store.durable import make_folder, storage_errors, sync_file
from registry.store.locks import single_flight
from registry.store.owners import owner_mark
from registry.store.snapshots import build_snapshot, snapshot_digest
from registry.versions import Conversion, Digest, FileEntry

TIMEOUT_S = 900.0
"""Longest that one conversion may take."""

_LOCAL = "local"
_MEMORY_FLOOR_BYTES = 12 * 2**30
"""Importing torch alone asks for gigabytes of addresses, of which it uses few."""

_MEMORY_PER_BYTE = 3
_FILE_PER_BYTE = 5
_FILE_FLOOR_BYTES = 128 * 2**20
_counter = itertools.count()

Stored = dict[str, tuple[str, int]]
"""Path -> SHA-256 and size in bytes."""


def has_pickles(pulled: PulledVersion) -> bool:
    """Whether the version was pulled with pickles that are to be converted."""
    return pulled.conversion is None and any(is_convertible(path) for path in _kept(pulled))


@dataclass(frozen=True, slots=True)
class Converter:
    """Converts what was pulled.

    Args:
        store: holds the version as it was logged.
        selection: the choice under which it was pulled.
        verify: hash the files of an earlier conversion again.
        timeout_s: bound on one conversion.
    """

    store: Store
    selection: Selection
    verify: bool = False
    timeout_s: float = TIMEOUT_S

    def convert(self, raw: PulledVersion, files: Mapping[str, str]) -> PulledVersion:
        """Return the version with safetensors in place of its pickles.

        Args:
            raw: as it was logged.
            files: path -> SHA-256 of its snapshot.

        Raises:
            UnsafeContentError: a pickle asks for more than tensors, or holds no weights.
            IntegrityError: a file is cut, damaged or of another format.
            ConversionError: torch is missing or too old, or time or memory ran out.
            StorageError: the disk refuses.
        """
        lock = self.store.layout.locks / f"convert-{raw.digest[:32]}.lock"
        with single_flight(lock, timeout_s=self.timeout_s):
            lease = self.store.claims.hold(raw.digest)
            if lease is None:
                raise UnavailableError(
                    f"{raw.version.short_name} was pruned while it was used.", hint="Pull it again."
                )
            with lease:
                found = self._known(raw.digest)
                held = self.store.claims.hold(found.snapshot) if found else None
                if found is None or held is None:
                    return self._make(raw, files)
                with held:
                    return self._commit(raw, found)

    def _known(self, digest: str) -> ConvertedSnapshot | None:
        found = known_conversion(self.store.layout, digest)
        if found is None:
            return None
        folder = self.store.layout.snapshot(found.snapshot)
        whole = all(_has_size(folder / path, size) for path, (_, size) in found.files.items())
        if not whole:
            return None
        if self.verify:
            hashed = {path: sha256_of(folder / path) for path in found.files}
            if snapshot_digest(hashed) != found.snapshot:
                return None
        return found

    def _make(self, raw: PulledVersion, files: Mapping[str, str]) -> PulledVersion:
        name = raw.version.qualified_name
        pickles = [path for path in files if is_convertible(path)]
        targets = choose_targets(name, pickles, files.keys())
        with self._scratch() as scratch:
            done = self._run(raw, targets, scratch)
            made = {target.target: scratch / f"{i}.safetensors" for i, target in enumerate(targets)}
            made |= self._indexes(raw.path, files, targets, done, scratch)
            for path in made.values():
                path.chmod(0o444)
                sync_file(path)
            hashed = {path: (sha256_of(file), file.stat().st_size) for path, file in made.items()}
            kept = {
                path: (sha256, (raw.path / path).stat().st_size)
                for path, sha256 in files.items()
                if path not in pickles and not is_index(path)
            }
            return self._publish(raw, {**kept, **hashed}, made, targets, done)

    def _run(self, raw: PulledVersion, targets: Sequence[Target], scratch: Path) -> Done:
        folder = raw.path
        jobs = tuple(
            FileJob(
                path=target.path,
                source=str(folder / target.path),
                target=str(scratch / f"{index}.safetensors"),
                checkpoint=target.checkpoint,
                config_dir=str((folder / target.config).parent) if target.config else "",
            )
            for index, target in enumerate(targets)
        )
        sizes_bytes = [(folder / target.path).stat().st_size for target in targets]
        self._check_space(sum(sizes_bytes))
        request = ConvertRequest(
            name=raw.version.qualified_name,
            files=jobs,
            parent_pid=os.getpid(),
            memory_limit_bytes=_MEMORY_FLOOR_BYTES + _MEMORY_PER_BYTE * sum(sizes_bytes),
            cpu_limit_s=math.ceil(self.timeout_s) + 1,
            file_limit_bytes=_FILE_FLOOR_BYTES + _FILE_PER_BYTE * max(sizes_bytes),
        )
        home = scratch / "home"
        home.mkdir(mode=0o700)
        return run_child(request, scratch_dir=home, timeout_s=self.timeout_s)

    def _check_space(self, needed_bytes: int) -> None:
        free_bytes = self.store.free_bytes()
        if free_bytes < needed_bytes:
            raise ConversionError(
                f"The converted weights need {needed_bytes} bytes, {free_bytes} are free in "
                f"{self.store.layout.root}.",
                hint="Free space, or point RUNPORT_CACHE_DIR at another disk.",
            )

    def _indexes(
        self,
        folder: Path,
        files: Mapping[str, str],
        targets: Sequence[Target],
        done: Done,
        scratch: Path,
    ) -> dict[str, Path]:
        names = {file.path: file.names for file in done.files}
        converted = {t.path: (t.target, frozenset(names[t.path])) for t in targets}
        made = {}
        for path in filter(is_index, files):
            made[index_target(path)] = scratch / f"{next(_counter)}.json"
            raw = rewrite_index(path, (folder / path).read_bytes(), converted)
            made[index_target(path)].write_bytes(raw)
        return made

    def _publish(
        self,
        raw: PulledVersion,
        stored: Stored,
        made: Mapping[str, Path],
        targets: Sequence[Target],
        done: Done,
    ) -> PulledVersion:
        layout = self.store.layout
        with self.store.claims.pulling(size for _, size in stored.values()):
            for path, file in made.items():
                self.store.blobs.adopt(file, stored[path][0])
            digest, _ = build_snapshot(layout, {path: sha for path, (sha, _) in stored.items()})
            conversion = Conversion(
                snapshot=raw.digest,
                files={target.path: target.target for target in targets},
                tensors=sum(len(file.names) for file in done.files),
                prefix=next((file.prefix for file in done.files if file.prefix), ""),
            )
            found = ConvertedSnapshot(conversion, digest, stored)
            remember_conversion(layout, found)
            return self._commit(raw, found)

    def _commit(self, raw: PulledVersion, found: ConvertedSnapshot) -> PulledVersion:
        version, digests = raw.version, {p: sha for p, (sha, _) in found.files.items()}
        path = self.store.layout.snapshot(found.snapshot)
        if version.version == _LOCAL:
            entries = tuple(
                FileEntry(path, size, Digest("sha256", sha256))
                for path, (sha256, size) in found.files.items()
            )
            version = replace(version, files=entries)
        else:
            path = self.store.commit(
                version, self.selection.converted_key, digests, raw.skipped, found.conversion
            ).path
        return replace(
            raw, version=version, path=path, digest=found.snapshot, conversion=found.conversion
        )

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        # A name that the next prune collects if this process is killed.
        folder = self.store.layout.ingest / f"convert.{owner_mark()}.{next(_counter)}.tmp"
        with storage_errors("make room for a conversion"):
            make_folder(folder)
        try:
            # A prune leaves left-overs of the last hour alone while there is a claim.
            with self.store.claims.pulling(()):
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _kept(pulled: PulledVersion) -> list[str]:
    skipped = {file.path for file in pulled.skipped}
    return [file.path for file in pulled.version.files if file.path not in skipped]


def _has_size(path: Path, size_bytes: int) -> bool:
    try:
        return path.lstat().st_size == size_bytes and not path.is_symlink()
    except OSError:
        return False
