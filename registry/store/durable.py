"""Writing so that a crash leaves the old or the new, never a mixture.

Owns the order write -> fsync -> rename -> fsync of the folder, and what an
`OSError` means to the caller. Knows nothing about what is written.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from registry.errors import StorageError

PRIVATE_FOLDER = 0o700
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextmanager
def storage_errors(action: str) -> Iterator[None]:
    """Turn an OSError of the block into a StorageError that says what was being done."""
    try:
        yield
    except OSError as error:
        hint = "Check that the cache folder can be read and written (RUNPORT_CACHE_DIR)."
        if error.errno in _FULL:
            hint = "The disk is full. Free space, or point RUNPORT_CACHE_DIR elsewhere."
        raise StorageError(f"Could not {action}: {error}.", hint=hint) from error


def make_folder(path: Path) -> None:
    """Create a folder and its parents, readable by the owner only."""
    # `parents=True` alone would create the parents with the default mode.
    for folder in [*reversed(path.parents), path]:
        if not folder.exists():
            with suppress(FileExistsError):
                folder.mkdir(mode=PRIVATE_FOLDER)


def sync_folder(path: Path) -> None:
    """Make the entries of a folder durable: renames are lost on power loss without it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make the bytes of a file durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_durably(source: Path, target: Path) -> None:
    """Rename `source` to `target` on the same file system and make the rename durable."""
    os.replace(source, target)
    sync_folder(target.parent)


def write_durably(target: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write a small file so that it is there completely or not at all."""
    make_folder(target.parent)
    temporary = target.with_name(f".{target.name[:100]}.{uuid.uuid4().hex}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(descriptor)
        replace_durably(temporary, target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
