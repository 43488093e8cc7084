"""The writing end of the spool: durable, bounded, one writer.

Owns order, durability and the cap; does not know what the payloads say. An
entry counts as written once its bytes are synced. Above the cap the oldest
segments go first, and how many undelivered entries went with them is counted.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from serving.telemetry import frames, lane
from serving.telemetry.frames import Entry
from serving.telemetry.lane import FileLock, SpoolError

_MAX_LANES = 64
_MAX_SEGMENT_BYTES = 2**20
_SEGMENTS_PER_CAP = 8


def open_free_lane(spool_dir: Path, *, cap_bytes: int) -> SpoolWriter:
    """Open the first lane of `spool_dir` that no other server holds.

    So servers that share a folder each get a lane, and what a dead one left
    behind is delivered by the next to take its lane.

    Raises:
        SpoolError: the disk refuses, or every lane is taken.
    """
    for number in range(_MAX_LANES):
        writer = SpoolWriter(spool_dir / f"lane-{number}", cap_bytes=cap_bytes)
        if writer.try_open():
            return writer
    raise SpoolError(f"all {_MAX_LANES} lanes of {spool_dir} are taken by other servers")


class SpoolWriter:
    """Appends entries to the segments of a lane.

    Args:
        directory: the lane; made when missing, readable by its owner only.
        cap_bytes: most bytes of all segments together.

    Not thread-safe: one thread uses it.
    """

    def __init__(self, directory: Path, *, cap_bytes: int) -> None:
        self.directory = directory
        self._cap_bytes = cap_bytes
        self._segment_bytes = max(1, min(_MAX_SEGMENT_BYTES, cap_bytes // _SEGMENTS_PER_CAP))
        self._lock = FileLock(directory / "writer.lock")
        self._dropped = 0
        self._descriptor = -1
        self._active_first = 0
        self._active_bytes = 0
        self._next_sequence = 1

    @property
    def dropped(self) -> int:
        """Entries that the cap removed before W&B had them, ever."""
        return self._dropped

    @property
    def last_sequence(self) -> int:
        """Sequence of the newest entry; 0 when there never was one."""
        return self._next_sequence - 1

    def depth(self) -> int:
        """Return how many entries W&B does not have yet; an upper bound after drops."""
        return max(0, self.last_sequence - lane.read_acknowledged(self.directory))

    def try_open(self) -> bool:
        """Lock the lane and get ready to append; False when another process holds it.

        Raises:
            SpoolError: the disk refuses.
        """
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._lock.acquire():
                return False
            self._dropped = lane.read_dropped(self.directory)
            self._recover()
        except OSError as error:
            self.close()
            raise SpoolError(f"cannot open the spool {self.directory}: {error}") from error
        return True

    def _recover(self) -> None:
        """Continue the newest segment behind its last whole frame."""
        acknowledged = lane.read_acknowledged(self.directory)
        found = lane.segments(self.directory)
        if not found:
            self._begin_segment(acknowledged + 1)
            return
        first, path = found[-1]
        entries, end = frames.decode(path.read_bytes())
        last = entries[-1].sequence if entries else first - 1
        if last < acknowledged:
            self._begin_segment(acknowledged + 1)
            return
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        os.ftruncate(self._descriptor, end)
        os.fsync(self._descriptor)
        self._active_first, self._active_bytes, self._next_sequence = first, end, last + 1

    def _begin_segment(self, first_sequence: int) -> None:
        path = lane.segment_path(self.directory, first_sequence)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        lane.sync_directory(self.directory)
        self._close_segment()
        self._descriptor = descriptor
        self._active_first, self._active_bytes = first_sequence, 0
        self._next_sequence = first_sequence

    def append(self, payloads: Sequence[bytes]) -> int:
        """Write entries durably, in order, and return the last one's sequence.

        Either all of them are written or none is.

        Raises:
            SpoolError: the disk refuses (full, I/O error); nothing was appended.
        """
        entries = [Entry(self._next_sequence + n, p) for n, p in enumerate(payloads)]
        data = b"".join(map(frames.encode, entries))
        if len(data) > self._cap_bytes:
            raise SpoolError(f"{len(data)} bytes do not fit a spool of {self._cap_bytes} bytes")
        try:
            if self._active_bytes and self._active_bytes + len(data) > self._segment_bytes:
                self._begin_segment(self._next_sequence)
            self._trim(len(data))
            self._write(data)
        except OSError as error:
            raise SpoolError(f"cannot write the spool {self.directory}: {error}") from error
        self._next_sequence += len(entries)
        self._active_bytes += len(data)
        return self.last_sequence

    def _write(self, data: bytes) -> None:
        try:
            written = 0
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
            os.fsync(self._descriptor)
        except OSError:
            self._forget_torn_tail()
            raise

    def _forget_torn_tail(self) -> None:
        """Keep whatever part of a failed write arrived from standing before the next frame."""
        try:
            os.ftruncate(self._descriptor, self._active_bytes)
        except OSError:
            # Readers drop the tail as damage, and the next write begins a new segment.
            self._active_bytes = self._segment_bytes + 1

    def _trim(self, incoming_bytes: int) -> None:
        """Remove delivered segments, and the oldest others while over the cap."""
        acknowledged = lane.read_acknowledged(self.directory)
        found = lane.segments(self.directory)
        sizes = [path.stat().st_size for _, path in found]
        total = sum(sizes) + incoming_bytes
        # The newest is the one being written: it stays.
        for (first, path), (after, _), size in zip(found, found[1:], sizes, strict=False):
            delivered = after - 1 <= acknowledged
            if not delivered and total <= self._cap_bytes:
                return
            if not delivered:
                self._count_dropped(after - max(first, acknowledged + 1))
            path.unlink()
            total -= size

    def _count_dropped(self, entries: int) -> None:
        self._dropped += entries
        lane.write_dropped(self.directory, self._dropped)

    def _close_segment(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def close(self) -> None:
        """Free the lane for another server; the entries stay."""
        self._close_segment()
        self._lock.release()
