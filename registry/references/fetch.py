"""References into the cache: checked where the manifest says how, and pinned in any case.

    reference + digest + size ─► known SHA-256 and blob here? ─► done
                                 │ no
                               open ─► copy and hash ─► manifest right? pin right? ─► blob, pin

A pin is the SHA-256 of the first fetch. Of a reference that the manifest says nothing about
(`checksum=False`, a server without ETags), and of one that only an ETag vouches for, other
bytes than the first time are refused.
"""

from __future__ import annotations

import base64
import hashlib
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from registry.errors import IntegrityError, StorageError
from registry.references.allowed import (
    AllowedReferences,
    is_checkable,
    parse_allowed,
    same_etag,
)
from registry.references.sources import Opened, opened
from registry.store.durable import make_folder, storage_errors, write_durably
from registry.versions import FileEntry

if TYPE_CHECKING:
    from registry.store import Store

__all__ = ["Fetched", "fetched_references", "parse_allowed"]

_DISK_RESERVE_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Fetched:
    """What references brought.

    Attributes:
        files: path in the version -> SHA-256.
        fetched_bytes: what was read.
    """

    files: dict[str, str]
    fetched_bytes: int


class _Pin(msgspec.Struct, frozen=True):
    """What a reference was when it was first fetched."""

    url: str
    sha256: str
    size_bytes: int


@contextmanager
def fetched_references(
    store: Store, entries: Sequence[FileEntry], allowed: AllowedReferences
) -> Iterator[Fetched]:
    """Have the files of references in the cache while the block runs.

    Args:
        store: where they go.
        entries: references, all allowed.
        allowed: what redirects and links may lead to.

    Raises:
        IntegrityError: the bytes are not those that were logged, or that were fetched first.
        UnsafeContentError, NotFoundError, UnavailableError: see `sources`.
        StorageError: the disk refuses.
    """
    files: dict[str, str] = {}
    fetched_bytes = 0
    sizes: set[int] = set()
    for entry in entries:
        pin = _pinned(store, entry)
        with store.claims.pulling([pin.size_bytes] if pin else []):
            if pin is None or not store.blobs.is_sound(pin.sha256, pin.size_bytes):
                pin = _fetch(store, entry, allowed, pin)
                fetched_bytes += pin.size_bytes
            files[entry.path] = pin.sha256
            sizes.add(pin.size_bytes)
    with store.claims.pulling(sizes):
        yield Fetched(files, fetched_bytes)


def _fetch(store: Store, entry: FileEntry, allowed: AllowedReferences, pin: _Pin | None) -> _Pin:
    folder = store.layout.ingest
    temporary = folder / f"reference.{uuid.uuid4().hex}.tmp"
    with storage_errors(f"fetch {entry.path!r}"):
        make_folder(folder)
    try:
        with opened(entry.reference or "", allowed) as source:
            _check_room(store, source.size_bytes or entry.size_bytes)
            md5, sha256, size_bytes = _copy(source, temporary)
            _check(entry, source, md5, size_bytes)
        found = _Pin(entry.reference or "", sha256, size_bytes)
        if pin is not None and pin.sha256 != sha256:
            raise IntegrityError(
                f"{entry.reference} has other bytes than when it was fetched first: SHA-256 "
                f"{sha256[:16]}… instead of {pin.sha256[:16]}….",
                hint="Log the artifact again if the change is meant.",
            )
        with store.claims.pulling([size_bytes]):
            store.blobs.adopt(temporary, sha256)
            with storage_errors("pin a reference"):
                write_durably(_pin_path(store, entry), msgspec.json.encode(found))
    finally:
        temporary.unlink(missing_ok=True)
    return found


def _copy(source: Opened, target: Path) -> tuple[str, str, int]:
    """Return MD5 in W&B's spelling, SHA-256 in hexadecimal, and the size in bytes."""
    md5 = hashlib.md5()  # noqa: S324 - W&B's
    sha256, size_bytes = hashlib.sha256(), 0
    with storage_errors("write a referenced file"), target.open("xb") as file:
        for chunk in source.chunks:
            md5.update(chunk)
            sha256.update(chunk)
            size_bytes += len(chunk)
            file.write(chunk)
        file.flush()
        os.fchmod(file.fileno(), 0o444)
        os.fsync(file.fileno())
    return base64.b64encode(md5.digest()).decode(), sha256.hexdigest(), size_bytes


def _check(entry: FileEntry, source: Opened, md5: str, size_bytes: int) -> None:
    """Compare with what the manifest says: MD5 of files, ETag of what servers hold, size."""
    problem, encoded_alike = "", True
    recorded = entry.reference_digest or ""
    if is_checkable(entry):
        if (entry.reference or "").startswith("file:"):
            problem = "" if md5 == recorded else f"MD5 {md5} instead of {recorded}"
        else:
            same, encoded_alike = same_etag(source.etag or "", recorded)
            problem = "" if same else f"ETag {source.etag} instead of {recorded}"
    sized = entry.size_bytes and encoded_alike and entry.size_bytes != size_bytes
    cut = source.size_bytes is not None and source.size_bytes != size_bytes
    if not problem and (sized or cut):
        expected_bytes = entry.size_bytes if sized else source.size_bytes
        problem = f"{size_bytes} bytes instead of {expected_bytes}"
    if problem:
        raise IntegrityError(
            f"{entry.reference} is not what was logged as {entry.path!r}: {problem}.",
            hint="It changed after it was logged. Log the artifact again.",
        )


def _check_room(store: Store, needed_bytes: int) -> None:
    free_bytes = store.free_bytes()
    if free_bytes < needed_bytes + _DISK_RESERVE_BYTES:
        raise StorageError(
            f"{needed_bytes} bytes are needed, {free_bytes} are free in {store.layout.root}.",
            hint="Free space, or point RUNPORT_CACHE_DIR at another disk.",
        )


def _pinned(store: Store, entry: FileEntry) -> _Pin | None:
    try:
        return msgspec.json.decode(_pin_path(store, entry).read_bytes(), type=_Pin)
    except (OSError, msgspec.DecodeError):
        return None


def _pin_path(store: Store, entry: FileEntry) -> Path:
    known = f"{entry.reference}\n{entry.reference_digest}\n{entry.size_bytes}"
    return store.layout.reference_pin(hashlib.sha256(known.encode()).hexdigest())
