"""Which requests are being worked on right now, readable after the process has died.

A small shared memory: the worker writes the request ids of a batch before it runs and
clears them after; the HTTP process reads them only when the worker crashed, to fail
those requests alone and to send the others again. Costs no message per batch.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Sequence

_CELL = struct.Struct("=Q")


class RunningBoard:
    """`lanes` lists of at most `width` request ids each, in memory shared by file descriptor.

    Open with `create` (HTTP process) or `attach` (worker); ids are positive.
    """

    def __init__(self, memory: mmap.mmap, lanes: int, width: int) -> None:
        self._memory = memory
        self._lanes = lanes
        self._width = width

    @classmethod
    def create(cls, lanes: int, width: int) -> tuple[RunningBoard, int]:
        """Make an empty board; returns it and the descriptor to pass on (the caller closes it)."""
        fd = os.memfd_create("runport-board")
        os.ftruncate(fd, lanes * (1 + width) * _CELL.size)
        return cls.attach(fd, lanes, width), fd

    @classmethod
    def attach(cls, fd: int, lanes: int, width: int) -> RunningBoard:
        """Map a board that another process made; `fd` may be closed afterwards."""
        return cls(mmap.mmap(fd, lanes * (1 + width) * _CELL.size), lanes, width)

    def enter(self, lane: int, ids: Sequence[int]) -> None:
        """Say that work on these requests begins in `lane`."""
        start = self._start(lane)
        for position, identifier in enumerate(ids[: self._width], start=1):
            _CELL.pack_into(self._memory, start + position * _CELL.size, identifier)
        # The count comes last: a crash between the writes shows no half list.
        _CELL.pack_into(self._memory, start, min(len(ids), self._width))

    def leave(self, lane: int) -> None:
        """Say that work in `lane` has ended."""
        _CELL.pack_into(self._memory, self._start(lane), 0)

    def read(self) -> frozenset[int]:
        """Return the ids of all requests that are being worked on."""
        found: set[int] = set()
        for lane in range(self._lanes):
            start = self._start(lane)
            (count,) = _CELL.unpack_from(self._memory, start)
            for position in range(1, min(count, self._width) + 1):
                found.add(_CELL.unpack_from(self._memory, start + position * _CELL.size)[0])
        return frozenset(found)

    def close(self) -> None:
        """Unmap the memory."""
        self._memory.close()

    def _start(self, lane: int) -> int:
        return lane * (1 + self._width) * _CELL.size
