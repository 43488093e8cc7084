"""Snapshots: a version's files in one folder, made of blobs.

A reflink costs nothing and keeps the blob apart; a hard link costs nothing and
shares it (ONNX Runtime, which refuses symbolic links, accepts it); a copy is
the last resort.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath

from registry.store.blobs import sha256_of
from registry.store.durable import make_folder, replace_durably, storage_errors, sync_folder
from registry.store.layout import Layout

_FICLONE = 0x40049409
_NO_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP})


def snapshot_digest(files: Mapping[str, str] | Iterable[tuple[str, str]]) -> str:
    """Return the digest of a set of files: SHA-256 over the sorted (path, SHA-256) pairs.

    Args:
        files: path -> SHA-256 in hexadecimal.
    """
    hasher = hashlib.sha256(b"runport-snapshot-v1\n")
    for path, sha256 in sorted(dict(files).items()):
        hasher.update(f"{sha256} {path}\n".encode())
    return hasher.hexdigest()


def build_snapshot(layout: Layout, files: Mapping[str, str]) -> tuple[str, Path]:
    """Make the snapshot of these files, unless it is there already.

    Args:
        layout: where the cache lies; all blobs must be in it.
        files: path -> SHA-256; the paths were checked to stay beneath the root.

    Returns:
        The snapshot's digest and folder. Nothing is visible before it is complete.

    Raises:
        StorageError: the disk refuses.
    """
    digest = snapshot_digest(files)
    target = layout.snapshot(digest)
    with storage_errors(f"make the snapshot {digest[:12]}"):
        if _holds(target, files):
            return digest, target
        make_folder(layout.snapshots)
        temporary = layout.snapshots / f".{digest[:16]}.{uuid.uuid4().hex}.tmp"
        try:
            folders = _fill(layout, temporary, files)
            for folder in sorted(folders, reverse=True):
                sync_folder(folder)
            _publish(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return digest, target


def _holds(folder: Path, files: Mapping[str, str]) -> bool:
    """Whether the folder is there and holds these bytes; a wrong one is removed."""
    if not folder.is_dir():
        return False
    with suppress(OSError):
        if all(sha256_of(folder / path) == sha256 for path, sha256 in files.items()):
            return True
    # Left by a crash and damaged since; no record rests on it.
    doomed = folder.with_name(f".{folder.name[:16]}.{uuid.uuid4().hex}.tmp")
    os.rename(folder, doomed)
    shutil.rmtree(doomed, ignore_errors=True)
    return False


def _fill(layout: Layout, folder: Path, files: Mapping[str, str]) -> set[Path]:
    make_folder(folder)
    folders = {folder}
    for path, sha256 in files.items():
        target = folder.joinpath(*PurePosixPath(path).parts)
        make_folder(target.parent)
        folders.update(p for p in target.parents if p == folder or folder in p.parents)
        place(layout.blob(sha256), target)
    return folders


def _publish(temporary: Path, target: Path) -> None:
    try:
        replace_durably(temporary, target)
    except OSError as error:
        # Somebody else has just published the same bytes.
        if error.errno not in {errno.EEXIST, errno.ENOTEMPTY} or not target.is_dir():
            raise


def place(source: Path, target: Path) -> None:
    """Put the bytes of `source` at `target`: reflink, else hard link, else durable copy.

    Raises:
        OSError: none of them works.
    """
    if _reflink(source, target):
        return
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        _copy(source, target)


def _reflink(source: Path, target: Path) -> bool:
    with source.open("rb") as read:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
        try:
            fcntl.ioctl(descriptor, _FICLONE, read.fileno())
        except OSError:
            with suppress(OSError):
                target.unlink()
            return False
        finally:
            os.close(descriptor)
    shutil.copystat(source, target)
    return True


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as read, target.open("xb") as write:
        shutil.copyfileobj(read, write, 1024 * 1024)
        write.flush()
        os.fsync(write.fileno())
    shutil.copystat(source, target)
