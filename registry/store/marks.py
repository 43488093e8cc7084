"""What we note about snapshots ourselves: when each was last used, and which are pinned.

    used/<snapshot>    empty; its time is when the snapshot was last pulled
    pins/<snapshot>    never pruned; JSON with the name that was pinned and when

The time is our own: `atime` is not kept on many file systems, and backups and
virus scanners change it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from registry.store.durable import make_folder, storage_errors, write_durably
from registry.store.layout import Layout
from registry.store.records import now_text


@dataclass(frozen=True, slots=True)
class Pin:
    """A snapshot that stays.

    Attributes:
        name: what was pinned, as it was resolved.
        pinned_at: RFC 3339 time.
    """

    name: str
    pinned_at: str


class Marks:
    """Last uses and pins of one cache.

    Args:
        layout: where the cache lies.
    """

    def __init__(self, layout: Layout) -> None:
        self._used = layout.used
        self._pins = layout.pins

    def touch(self, snapshot: str) -> None:
        """Note that the snapshot is used now; a cache that cannot be written stays unmarked."""
        path = self._used / snapshot
        with suppress(OSError):
            try:
                os.utime(path)
            except FileNotFoundError:
                make_folder(self._used)
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
                os.utime(path)

    def last_used_s(self, snapshot: str) -> float | None:
        """Return the Unix time of the last use, or None if none was noted."""
        try:
            return (self._used / snapshot).stat().st_mtime
        except OSError:
            return None

    def forget(self, snapshot: str) -> None:
        """Remove the note of the last use."""
        with suppress(OSError):
            (self._used / snapshot).unlink()

    def pin(self, snapshot: str, name: str) -> None:
        """Keep the snapshot until it is unpinned.

        Raises:
            StorageError: the cache cannot be written.
        """
        with storage_errors(f"pin {name}"):
            write_durably(self._pins / snapshot, msgspec.json.encode(Pin(name, now_text())))

    def unpin(self, snapshot: str) -> bool:
        """Let the snapshot go when it must; returns whether it was pinned.

        Raises:
            StorageError: the cache cannot be written.
        """
        with storage_errors("remove a pin"):
            try:
                (self._pins / snapshot).unlink()
            except FileNotFoundError:
                return False
        return True

    def pins(self) -> Mapping[str, Pin | None]:
        """Return snapshot -> pin; a damaged note still pins."""
        with storage_errors("read the pins"):
            names = os.listdir(self._pins) if self._pins.is_dir() else []
        return {name: _read(self._pins / name) for name in names if not name.startswith(".")}


def _read(path: Path) -> Pin | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Pin)
    except (OSError, msgspec.DecodeError):
        return None
