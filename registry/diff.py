"""What differs between two versions: files by digest, `config.json` by key, metrics, metadata.

A version is compared by its manifest, so that nothing but `config.json` is fetched;
a local folder is hashed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from registry.cache import cached_records, open_store
from registry.config import Settings
from registry.content import Selection
from registry.errors import NotFoundError, OfflineError
from registry.local import folder_entries
from registry.lookup import open_hub, resolve
from registry.pull import pull
from registry.reference import LocalRef, parse_reference
from registry.store.durable import storage_errors
from registry.store.ingest import Hasher
from registry.versions import ArtifactVersion

if TYPE_CHECKING:
    from registry.hub import Hub

CONFIG = "config.json"
_READ_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class FileChange:
    """A file that is not the same on both sides.

    Attributes:
        path: beneath the root.
        change: `added`, `removed`, `changed`, or `unknown`: of one size, but hashed with
            different algorithms, so that only a pull of both can tell.
        before_bytes, after_bytes: sizes; None where it is not.
    """

    path: str
    change: str
    before_bytes: int | None
    after_bytes: int | None


@dataclass(frozen=True, slots=True)
class ValueChange:
    """A value that is not the same on both sides.

    Attributes:
        key: with dots for what is nested.
        change: `added`, `removed` or `changed`.
        before, after: JSON values; None where there is none.
    """

    key: str
    change: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Difference:
    """All that differs from `before` to `after`.

    Attributes:
        before, after: pinned names, or folders.
        files: that differ, by path.
        same_files: how many do not.
        config: keys of `config.json`.
        metrics: numbers of the metadata.
        metadata: everything else of it.
    """

    before: str
    after: str
    files: tuple[FileChange, ...]
    same_files: int
    config: tuple[ValueChange, ...]
    metrics: tuple[ValueChange, ...]
    metadata: tuple[ValueChange, ...]

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not (self.files or self.config or self.metrics or self.metadata)


@dataclass(frozen=True, slots=True)
class _File:
    size_bytes: int
    digests: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Side:
    name: str
    files: Mapping[str, _File]
    metadata: Mapping[str, Any]
    config: Mapping[str, Any]


def diff(
    before: str, after: str, *, settings: Settings | None = None, hub: Hub | None = None
) -> Difference:
    """Compare two versions, or a version and a local folder.

    Args:
        before, after: names as for `pull`; offline, versions that are in the cache.
        settings: default: from the environment.
        hub: default: W&B through its SDK.

    Raises:
        RegistryError: as for `pull`.
    """
    settings = settings or Settings.from_environment()
    one, other = (_side(name, settings, hub) for name in (before, after))
    files = _file_changes(one.files, other.files)
    values = _value_changes(one.metadata, other.metadata)
    metrics = tuple(value for value in values if _is_number(value.before, value.after))
    return Difference(
        before=one.name,
        after=other.name,
        files=files,
        same_files=len(one.files.keys() | other.files.keys()) - len(files),
        config=_value_changes(one.config, other.config),
        metrics=metrics,
        metadata=tuple(value for value in values if value not in metrics),
    )


def _side(name: str, settings: Settings, hub: Hub | None) -> _Side:
    parsed = parse_reference(name)
    if isinstance(parsed, LocalRef):
        return _folder(Path(parsed.path).expanduser().absolute())
    if settings.offline:
        version = _cached_version(name, settings)
    else:
        hub = hub or open_hub(settings)
        version = resolve(name, settings=settings, hub=hub)
    arrived = _arrived(version, settings)
    files = {
        file.path: _File(
            file.size_bytes,
            {
                **({file.digest.algorithm: file.digest.hex} if file.digest else {}),
                **({"reference": file.reference} if file.reference else {}),
                **({"sha256": arrived[file.path]} if file.path in arrived else {}),
            },
        )
        for file in version.files
    }
    config = _read_object(_config_path(version, settings, hub))
    return _Side(version.qualified_name, files, version.metadata, config)


def _folder(folder: Path) -> _Side:
    if not folder.is_dir():
        raise NotFoundError(f"There is no folder {folder}.", hint="Name a folder with a model.")
    with storage_errors(f"read {folder}"):
        files = {
            entry.path: _File(entry.size_bytes, _digests(folder / entry.path))
            for entry in folder_entries(folder)
        }
    config = folder / CONFIG
    return _Side(str(folder), files, {}, _read_object(config if config.is_file() else None))


def _cached_version(name: str, settings: Settings) -> ArtifactVersion:
    records = cached_records(open_store(settings), settings, name)
    if not records:
        raise OfflineError(
            f"{name} is not in the cache, and offline mode forbids asking for it.",
            hint="Pull it once with a network, or unset RUNPORT_OFFLINE.",
        )
    return records[0].version


def _arrived(version: ArtifactVersion, settings: Settings) -> dict[str, str]:
    """Return path -> SHA-256 of the files that are in the cache."""
    records = cached_records(open_store(settings), settings, version.qualified_name)
    return {
        file.path: file.sha256
        for record in records
        if record.version.digest == version.digest
        for file in record.files
    }


def _config_path(version: ArtifactVersion, settings: Settings, hub: Hub | None) -> Path | None:
    if not any(file.path == CONFIG for file in version.files):
        return None
    store = open_store(settings)
    for record in cached_records(store, settings, version.qualified_name):
        path = store.layout.snapshot(record.snapshot) / CONFIG
        if record.version.digest == version.digest and path.is_file():
            return path
    only = Selection(include=(CONFIG,))
    pulled = pull(version.qualified_name, settings=settings, selection=only, hub=hub)
    return pulled.path / CONFIG


def _digests(path: Path) -> dict[str, str]:
    hashers: dict[str, Hasher] = {
        "md5": hashlib.md5(usedforsecurity=False),
        "xxh128": xxhash.xxh128(),
        "sha256": hashlib.sha256(),
    }
    with path.open("rb") as stream:
        while block := stream.read(_READ_BYTES):
            for hasher in hashers.values():
                hasher.update(block)
    return {name: hasher.hexdigest() for name, hasher in hashers.items()}


def _read_object(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    with storage_errors(f"read {path}"):
        raw = path.read_bytes()
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return {}  # Of a local folder; a pull refuses such a file.
    return document if isinstance(document, dict) else {}


def _file_changes(
    before: Mapping[str, _File], after: Mapping[str, _File]
) -> tuple[FileChange, ...]:
    changes = []
    for path in sorted(before.keys() | after.keys()):
        one, other = before.get(path), after.get(path)
        change = _file_change(one, other)
        if change is not None:
            changes.append(
                FileChange(
                    path,
                    change,
                    one.size_bytes if one else None,
                    other.size_bytes if other else None,
                )
            )
    return tuple(changes)


def _file_change(one: _File | None, other: _File | None) -> str | None:
    if one is None or other is None:
        return "added" if one is None else "removed"
    if one.size_bytes != other.size_bytes:
        return "changed"
    common = one.digests.keys() & other.digests.keys()
    if not common:
        return "unknown"
    return None if all(one.digests[k] == other.digests[k] for k in common) else "changed"


def _value_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[ValueChange, ...]:
    one, other = _flat(before), _flat(after)
    changes = []
    for key in sorted(one.keys() | other.keys()):
        if key not in one:
            changes.append(ValueChange(key, "added", None, other[key]))
        elif key not in other:
            changes.append(ValueChange(key, "removed", one[key], None))
        elif one[key] != other[key]:
            changes.append(ValueChange(key, "changed", one[key], other[key]))
    return tuple(changes)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _is_number(*values: Any) -> bool:
    known = [value for value in values if value is not None]
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in known) and bool(
        known
    )
