"""How many connections fetch at once: few from a server that is near, all from one that is far.

A server on the same machine or in the same rack fills the wire with one connection. More of them
only take processor time from the checksums, and wait for each other where they write one file.
"""

from __future__ import annotations

import time
from collections.abc import Callable

NEAR_CONNECTIONS = 3
NEAR_BYTES_PER_S = 250_000_000
WINDOW_S = 0.2


class Width:
    """Counts those that fetch. Not locked: its caller holds one lock around every call.

    Args:
        most: how many may fetch at all.
        now: a clock in seconds.
    """

    def __init__(self, most: int, now: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._now = now
        self._allowed = min(most, NEAR_CONNECTIONS)
        self._fetching = 0
        self._since_s: float | None = None
        self._bytes = 0

    @property
    def is_open(self) -> bool:
        """Whether one more may fetch."""
        self._look()
        return self._fetching < self._allowed

    def enter(self) -> None:
        """One more fetches."""
        self._fetching += 1
        if self._since_s is None:
            self._since_s = self._now()

    def leave(self) -> None:
        """One has ended."""
        self._fetching -= 1

    def count(self, count_bytes: int) -> None:
        """So many more bytes are here."""
        self._bytes += count_bytes

    def _look(self) -> None:
        now_s = self._now()
        if self._since_s is None or now_s - self._since_s < WINDOW_S:
            return
        if self._bytes < NEAR_BYTES_PER_S * (now_s - self._since_s):
            self._allowed = self._most
        self._since_s, self._bytes = now_s, 0
