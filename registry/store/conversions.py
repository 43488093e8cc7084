"""Which snapshot came from which one with pickled weights.

    conversions/<digest>.json    the snapshot with this digest, converted: its digest and files

A note, not a commit: it is believed only while the snapshot that it names is what it was, so
a lost one costs a conversion, and one that outlives its snapshot costs its bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from registry.store.durable import storage_errors, write_durably
from registry.store.snapshots import snapshot_digest
from registry.versions import Conversion

if TYPE_CHECKING:
    from registry.store.layout import Layout


@dataclass(frozen=True, slots=True)
class ConvertedSnapshot:
    """What became of a snapshot.

    Attributes:
        conversion: how.
        snapshot: digest of the converted one.
        files: path -> (SHA-256, size in bytes) of all its files.
    """

    conversion: Conversion
    snapshot: str
    files: dict[str, tuple[str, int]]


def remember_conversion(layout: Layout, found: ConvertedSnapshot) -> None:
    """Keep what became of a snapshot.

    Raises:
        StorageError: the disk refuses.
    """
    with storage_errors("note a conversion"):
        write_durably(layout.conversion(found.conversion.snapshot), msgspec.json.encode(found))


def known_conversion(layout: Layout, snapshot: str) -> ConvertedSnapshot | None:
    """Return what became of a snapshot, as it was noted; the files are not looked at."""
    try:
        raw = layout.conversion(snapshot).read_bytes()
        found = msgspec.json.decode(raw, type=ConvertedSnapshot)
    except (OSError, msgspec.DecodeError):
        return None
    digest = snapshot_digest({path: sha256 for path, (sha256, _) in found.files.items()})
    return found if (found.conversion.snapshot, found.snapshot) == (snapshot, digest) else None
