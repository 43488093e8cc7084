"""The exports folder: addressed by what went in, complete or absent.

    exports/<key>/export.json, model.onnx, config.json, tokenizer.json, …   a finished export
    exports/<key>.refused.json                                              the report of a refusal
    exports/.staging-<key>-<random>/                                        work in progress
    exports/.locks/<key>.lock                                               saves work, not truth

An export exists once its directory has been renamed into place: everything in it is written and
synced before. Finding one reads JSON and hashes files; it imports neither torch nor transformers.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from registry.errors import IntegrityError, UsageError
from registry.export.report import ParityReport
from registry.store.durable import (
    make_folder,
    storage_errors,
    sync_file,
    sync_folder,
    write_durably,
)

FORMAT = 1
"""Version of the layout; a reader ignores exports of another."""

GRAPH_REVISION = 2
"""Of what is done to a graph beside the tools; another one addresses other exports."""

RECORD = "export.json"
_TOOLS = ("onnx", "onnxruntime", "onnxscript", "tokenizers", "torch", "transformers")
_STALE_STAGING_S = 6 * 3600
_DIGEST = re.compile(r"[0-9a-f]{64}")
_DIGEST_CHARS = 32


@dataclass(frozen=True, slots=True)
class ExportFile:
    """One file of an export: its name, `size_bytes` and `sha256` in hexadecimal."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Export:
    """A finished export: a directory that a server needs alone.

    Attributes:
        path: the directory.
        key: its name in the exports folder.
        digest: snapshot digest of the model that it was made from.
        task: what it answers, such as `text-classification`.
        precision: of the weights and the arithmetic, such as `fp32`.
        engine: what runs it, such as `onnx`.
        report: how it compares with torch.
        input_names: inputs of the graph, in order.
        output_names: outputs of the graph, in order.
        max_tokens: longest input in tokens, special tokens included.
        architecture: class of the model, such as `BertForSequenceClassification`.
        weights_bytes: bytes of the weights that went in.
        created_at_s: Unix time when it was finished.
        seconds: how long the whole export took.
        peak_memory_bytes: the most memory that the child process held.
        files: every file but the record itself.
        fusions: steps that changed the exporter's graph, and in how many places.
        format: version of the layout.
    """

    path: Path
    key: str
    digest: str
    task: str
    precision: str
    engine: str
    report: ParityReport
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    max_tokens: int
    architecture: str
    weights_bytes: int
    created_at_s: float
    seconds: float
    peak_memory_bytes: int
    files: tuple[ExportFile, ...]
    fusions: Mapping[str, int] = field(default_factory=dict)
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class Refusal:
    """An export that did not pass its gate; only the report was kept, at `path`."""

    path: Path
    key: str
    digest: str
    task: str
    precision: str
    engine: str
    report: ParityReport
    format: int = FORMAT


_Record = TypeVar("_Record", Export, Refusal)


def tool_versions(more: Sequence[str] = ()) -> dict[str, str]:
    """Return the installed versions of what makes and runs an export; absent tools are left out.

    Among them `runport-graph`, the revision of our own work on graphs.

    Args:
        more: what this export needs besides.
    """
    versions = {"runport-graph": str(GRAPH_REVISION)}
    for name in (*_TOOLS, *more):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def export_key(
    digest: str, *, task: str, precision: str, engine: str, tools: Mapping[str, str]
) -> str:
    """Return the address of an export: the snapshot's digest, and a hash of all that shapes it.

    Raises:
        UsageError: `digest` is not a SHA-256 in hexadecimal.
    """
    _check_digest(digest)
    parts = {
        "format": FORMAT,
        "digest": digest,
        "task": task,
        "precision": precision,
        "engine": engine,
        "tools": dict(sorted(tools.items())),
    }
    fingerprint = hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()
    return f"{digest[:_DIGEST_CHARS]}-{fingerprint[:16]}"


def find_export(
    exports_dir: Path,
    digest: str,
    task: str | None = None,
    precision: str = "fp32",
    engine: str = "onnx",
    *,
    verify: bool = True,
) -> Export | None:
    """Return a finished export of the snapshot, or None.

    One made by the installed tools is preferred, then the newest; one made by other versions is
    as right, for its report says so. One whose files have changed is passed over.

    Args:
        exports_dir: the exports folder; need not exist.
        digest: snapshot digest (SHA-256, hexadecimal).
        task: None for whatever task it was exported for.
        precision: as in `Export`.
        engine: as in `Export`.
        verify: hash every file, about a second for two gigabytes; else compare sizes only.

    Raises:
        UsageError: `digest` is not a SHA-256 in hexadecimal.
        StorageError: the folder cannot be read.
    """
    _check_digest(digest)
    found = [
        export
        for export in _listed(exports_dir, digest)
        if (export.digest, export.precision, export.engine) == (digest, precision, engine)
        and task in (None, export.task)
    ]
    tools = tool_versions()

    def preference(export: Export) -> tuple[bool, float]:
        key = export_key(digest, task=export.task, precision=precision, engine=engine, tools=tools)
        return (export.key == key, export.created_at_s)

    for export in sorted(found, key=preference, reverse=True):
        if is_intact(export, verify=verify):
            return export
    return None


def find_refusal(
    exports_dir: Path,
    digest: str,
    task: str | None = None,
    precision: str = "fp32",
    engine: str = "onnx",
) -> Refusal | None:
    """Return the newest report of an export of the snapshot that its gate refused, or None."""
    found = [
        record
        for record in list_records(exports_dir, digest)
        if isinstance(record, Refusal)
        and (record.precision, record.engine) == (precision, engine)
        and task in (None, record.task)
    ]
    return max(found, key=lambda refusal: refusal.path.stat().st_mtime, default=None)


def list_records(exports_dir: Path, digest: str) -> list[Export | Refusal]:
    """Return all exports of the snapshot, and all that were refused; files are not checked.

    Raises:
        UsageError: `digest` is not a SHA-256 in hexadecimal.
        StorageError: the folder cannot be read.
    """
    _check_digest(digest)
    refusals = (
        _decode(path, path, Refusal)
        for path in _glob(exports_dir, f"{digest[:_DIGEST_CHARS]}-*.refused.json")
    )
    found: list[Export | Refusal] = [*_listed(exports_dir, digest)]
    found += [refusal for refusal in refusals if refusal is not None]
    return [record for record in found if record.digest == digest]


def read_record(directory: Path) -> Export | None:
    """Return what the record in `directory` says, wherever that folder came from, or None."""
    return _decode(directory / RECORD, directory, Export)


def read_export(directory: Path) -> Export | None:
    """Return the record of the export in `directory`, or None when there is no readable one."""
    export = read_record(directory)
    return export if export is not None and export.key == directory.name else None


def is_intact(export: Export, *, verify: bool = True) -> bool:
    """Return whether every file is there with the recorded size and, with `verify`, hash."""
    for file in export.files:
        path = export.path / file.name
        try:
            if path.is_symlink() or path.stat().st_size != file.size_bytes:
                return False
            if verify and hash_file(path) != file.sha256:
                return False
        except OSError:
            return False
    return True


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def staging(exports_dir: Path, key: str) -> Iterator[Path]:
    """Give a fresh private directory that is gone afterwards; old left-overs are collected."""
    path = exports_dir / f".staging-{key}-{secrets.token_hex(4)}"
    with storage_errors("make room for an export"):
        make_folder(path)
        _collect_stale(exports_dir)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def list_files(directory: Path) -> tuple[ExportFile, ...]:
    """Return name, size and hash of the files in `directory`, by name."""
    return tuple(
        ExportFile(name=path.name, size_bytes=path.stat().st_size, sha256=hash_file(path))
        for path in sorted(directory.iterdir())
    )


def commit(prepared: Path, exports_dir: Path, export: Export, *, replace: bool = False) -> Export:
    """Write the record, sync everything and rename `prepared` into place.

    When another exporter was first, its result is kept and returned; a broken one is replaced,
    and so is a whole one with `replace`.

    Raises:
        StorageError: the disk refuses.
    """
    final = exports_dir / export.key
    with storage_errors(f"store the export {export.key}"):
        (prepared / RECORD).write_bytes(_encode(export))
        for path in prepared.iterdir():
            path.chmod(0o444)
            sync_file(path)
        sync_folder(prepared)
        if replace:
            discard(final)
        winner = _rename(prepared, final)
        sync_folder(exports_dir)
        refusal_path(exports_dir, export.key).unlink(missing_ok=True)
    return winner or export


def keep_refusal(refusal: Refusal) -> None:
    """Store the report of an export that was refused, in one rename.

    Raises:
        StorageError: the disk refuses.
    """
    with storage_errors(f"store the report {refusal.path.name}"):
        write_durably(refusal.path, _encode(refusal))


def _rename(prepared: Path, final: Path) -> Export | None:
    """Rename; return the export that was there first, if it is whole."""
    for _ in range(3):
        try:
            prepared.rename(final)
            return None
        except OSError:
            if not final.is_dir():
                raise
        existing = read_export(final)
        if existing is not None and is_intact(existing):
            return existing
        discard(final)
    raise IntegrityError(
        f"{final} is broken and comes back.", hint="Is another program writing into the cache?"
    )


def discard(final: Path) -> None:
    """Take an export out of the way in one rename, then delete it."""
    doomed = final.with_name(f".staging-{final.name}-{secrets.token_hex(4)}")
    with contextlib.suppress(FileNotFoundError):
        final.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def refusal_path(exports_dir: Path, key: str) -> Path:
    """Return where the report of a refused export is kept."""
    return exports_dir / f"{key}.refused.json"


def _listed(exports_dir: Path, digest: str) -> Iterator[Export]:
    for path in _glob(exports_dir, f"{digest[:_DIGEST_CHARS]}-*"):
        export = read_export(path) if path.is_dir() else None
        if export is not None:
            yield export


def _glob(exports_dir: Path, pattern: str) -> list[Path]:
    with storage_errors(f"read {exports_dir}"):
        return sorted(exports_dir.glob(pattern))


def _encode(record: Export | Refusal) -> bytes:
    document = msgspec.to_builtins(record, enc_hook=str)
    del document["path"]
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def _decode(file: Path, path: Path, record: type[_Record]) -> _Record | None:
    try:
        document: dict[str, Any] = msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
        if document.get("format") != FORMAT:
            return None
        document["path"] = path
        return msgspec.convert(document, record)
    except (OSError, msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def _check_digest(digest: str) -> None:
    if not _DIGEST.fullmatch(digest):
        raise UsageError(
            f"{digest!r} is not a snapshot digest.", hint="It is a SHA-256 of 64 hex digits."
        )


def _collect_stale(exports_dir: Path) -> None:
    """Delete what exporters that were killed left behind, once nobody can still be at it."""
    oldest_s = time.time() - _STALE_STAGING_S
    for path in exports_dir.glob(".staging-*"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < oldest_s:
                shutil.rmtree(path, ignore_errors=True)
