"""Blobs: verified bytes, named by their SHA-256, read-only.

Accepts only what was hashed on arrival; hands out only what still hashes right.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import stat
import uuid
from contextlib import suppress
from pathlib import Path

from registry.store.durable import make_folder, replace_durably, storage_errors
from registry.store.ingest import Partial
from registry.store.layout import Layout
from registry.versions import Digest

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_READ_BYTES = 1024 * 1024
_log = logging.getLogger(__name__)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a regular file, without following a link.

    Raises:
        OSError: it cannot be read.
    """
    hasher = hashlib.sha256()
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as stream:
        buffer = memoryview(bytearray(_READ_BYTES))
        while count := stream.readinto(buffer):
            hasher.update(buffer[:count])
    return hasher.hexdigest()


def is_regular(path: Path, size_bytes: int) -> bool:
    """Whether there is a plain file of this size at `path` itself, not behind a link."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == size_bytes


class Blobs:
    """The blobs of one cache.

    Args:
        layout: where the cache lies.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def find(self, digest: Digest, size_bytes: int) -> str | None:
        """Return the SHA-256 of the blob with this W&B digest, if it is here and sound.

        The blob is hashed again: what a snapshot is made of was right when it was made.
        """
        note = self._layout.digest_entry(digest, size_bytes)
        try:
            sha256 = note.read_text("ascii")
        except (OSError, UnicodeDecodeError):
            return None
        if not _SHA256.match(sha256):
            return None
        return sha256 if self.is_sound(sha256, size_bytes) else None

    def is_sound(self, sha256: str, size_bytes: int) -> bool:
        """Whether the blob is here and hashes right; a wrong one is put into quarantine."""
        path = self._layout.blob(sha256)
        if not path.exists():
            return False
        if is_regular(path, size_bytes):
            with storage_errors(f"read the blob {sha256[:12]}"):
                try:
                    if sha256_of(path) == sha256:
                        return True
                except FileNotFoundError:
                    return False  # Pruned since.
        self.quarantine(path)
        return False

    def accept(self, partial: Partial, digest: Digest, sha256: str) -> None:
        """Turn a complete, verified partial file into a blob.

        Raises:
            StorageError: the disk refuses; nothing is visible then.
        """
        partial.seal()
        self.adopt(partial.path, sha256)
        self._note(digest, partial.size_bytes, sha256)

    def adopt(self, file: Path, sha256: str) -> None:
        """Move a durable file of the same file system into its place as a blob."""
        target = self._layout.blob(sha256)
        with storage_errors(f"store the blob {sha256[:12]}"):
            make_folder(target.parent)
            replace_durably(file, target)

    def _note(self, digest: Digest, size_bytes: int, sha256: str) -> None:
        # Not synced: a lost or torn note costs one download, and names no wrong
        # blob, since only 64 hexadecimal digits are believed.
        note = self._layout.digest_entry(digest, size_bytes)
        temporary = note.with_name(f".{note.name}.{uuid.uuid4().hex}.tmp")
        with storage_errors(f"note the digest {digest}"):
            make_folder(note.parent)
            temporary.write_text(sha256, "ascii")
            os.replace(temporary, note)

    def quarantine(self, path: Path) -> None:
        """Move a wrong file out of the way, keeping it for inspection."""
        target = self._layout.quarantine / f"{path.name[:64]}.{uuid.uuid4().hex[:8]}"
        _log.warning("%s is not what it was; moved to %s", path, target)
        with storage_errors(f"put {path.name} into quarantine"):
            make_folder(target.parent)
            with suppress(FileNotFoundError):
                os.rename(path, target)
