"""The way from the event loop to the spool: nothing on the loop waits for the disk.

Payloads wait in memory (bounded) until a thread of its own has written them. A
disk that refuses or hangs delays them and is tried again at the next flush.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog

from serving.telemetry.lane import SpoolError
from serving.telemetry.spool import SpoolWriter, open_free_lane

_log = structlog.get_logger(__name__)

_MAX_WAITING = 4096
_BATCH = 32


class Outbox:
    """Payloads on their way to a lane of the spool.

    Attributes:
        lane: the lane's folder; None until it is open.
        depth: entries that W&B does not have, as of the last flush.
        dropped: entries lost to the cap (ever) or to a full memory (this process).
    """

    def __init__(self, spool_dir: Path, *, cap_bytes: int) -> None:
        self._spool_dir = spool_dir
        self._cap_bytes = cap_bytes
        self._waiting: deque[bytes] = deque()
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="telemetry-spool")
        self._writer: SpoolWriter | None = None
        self._failing = False
        self._overflowed = 0
        self.lane: Path | None = None
        self.depth = 0
        self.dropped = 0

    def put(self, payload: bytes) -> None:
        """Queue a payload for the next flush; the oldest goes when memory's bound is reached."""
        with self._lock:
            if len(self._waiting) >= _MAX_WAITING:
                self._waiting.popleft()
                self._overflowed += 1
            self._waiting.append(payload)

    async def flush(self) -> None:
        """Write what waits, durably, off the event loop; a failure is logged, not raised."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._flush)

    def _flush(self) -> None:
        try:
            writer = self._open_writer()
            while batch := self._next_batch():
                writer.append(batch)
                self._forget(batch)
            self.depth = writer.depth()
            self.dropped = self._overflowed + writer.dropped
        except (SpoolError, OSError) as error:
            if not self._failing:
                _log.error("telemetry.spool_failed", error=str(error))
            self._failing = True
            self.depth = len(self._waiting)
        else:
            self._failing = False

    def _next_batch(self) -> list[bytes]:
        with self._lock:
            return list(itertools.islice(self._waiting, _BATCH))

    def _open_writer(self) -> SpoolWriter:
        if self._writer is None:
            self._writer = open_free_lane(self._spool_dir, cap_bytes=self._cap_bytes)
            self.lane = self._writer.directory
        return self._writer

    def _forget(self, written: list[bytes]) -> None:
        with self._lock:
            # `put` may have removed some of them from the left meanwhile.
            for payload in written:
                if self._waiting and self._waiting[0] is payload:
                    self._waiting.popleft()

    async def close(self, timeout_s: float) -> None:
        """Free the lane; what is written stays for the next server.

        A disk that hangs is waited for no longer than `timeout_s`.
        """
        closed = asyncio.get_running_loop().run_in_executor(self._thread, self._close_writer)
        self._thread.shutdown(wait=False)
        await asyncio.wait([closed], timeout=timeout_s)

    def _close_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
