"""Blobs that were replaced lately: kept for a while, since a client may hold a URL of theirs."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable


class ReplacedBlobs:
    """Thread-safe queue of blobs to collect later. A restart forgets it and collects them all.

    Args:
        grace_s: how long a blob is kept after it was replaced.
    """

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._lock = threading.Lock()
        self._queue: deque[tuple[float, str]] = deque()

    def add(self, blobs: Iterable[str]) -> None:
        """Note that something refers to these blobs (SHA-256) no longer."""
        now = time.monotonic()
        with self._lock:
            self._queue.extend((now, sha256) for sha256 in blobs)

    def take_due(self) -> set[str]:
        """Return those whose time is over, once each."""
        before = time.monotonic() - self._grace_s
        due = set()
        with self._lock:
            while self._queue and self._queue[0][0] <= before:
                due.add(self._queue.popleft()[1])
        return due
