"""A hard bound on calls that may hang.

The SDK's own time limits differ between versions and do not cover everything.
A call over the bound ends the process: it holds nothing that the spool lacks,
and its supervisor starts it again.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EXIT_STALLED = 75
"""Exit status for "try again" (`EX_TEMPFAIL`)."""

_log = logging.getLogger(__name__)


def _exit() -> None:
    _log.error("a call into the SDK hangs; the process ends and starts afresh")
    logging.shutdown()
    # No clean-up: it would wait for what hangs.
    os._exit(EXIT_STALLED)


class Watchdog:
    """Ends the process when a call takes longer than `limit_s` seconds."""

    def __init__(self, limit_s: float, on_expiry: Callable[[], None] = _exit) -> None:
        self._limit_s = limit_s
        self._on_expiry = on_expiry

    @contextmanager
    def limit(self) -> Iterator[None]:
        """Bound the block."""
        timer = threading.Timer(self._limit_s, self._on_expiry)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
