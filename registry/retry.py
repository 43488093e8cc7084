"""How long to try: statuses worth another try, growing waits, deadlines.

Every wait has an end. Waits grow, are spread by chance, and honour
`Retry-After`; a connection that drips is as dead as one that is silent.
"""

from __future__ import annotations

import email.utils
import random
import threading
import time
from dataclasses import dataclass

from registry.errors import NotFoundError, UnavailableError
from registry.wire import Answer

_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})
# Storage services answer 400 or 403 for a signature that has expired; some 404
# or 410 for an address that has moved.
_EXPIRED = frozenset({400, 401, 403, 404, 410})


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a download.

    Attributes:
        connections: files or ranges fetched at the same time.
        range_bytes: largest range asked for in one request.
        attempts: tries in a row without progress before giving up.
        connect_timeout_s, read_timeout_s: bounds on one wait for the network.
        first_wait_s, longest_wait_s: between tries; the wait doubles in between.
        longest_retry_after_s: a server that asks for more is unavailable.
        pace_window_s, pace_bytes: slower than so many bytes in each window is stalled.
    """

    connections: int = 8
    range_bytes: int = 32 * 1024 * 1024
    attempts: int = 6
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 30.0
    first_wait_s: float = 0.2
    longest_wait_s: float = 10.0
    longest_retry_after_s: float = 120.0
    pace_window_s: float = 30.0
    pace_bytes: int = 64 * 1024


class Transient(Exception):  # noqa: N818 - a reason to try again, not yet an error
    """An answer that is of no use now; asking again may help.

    Attributes:
        expired: whether a new address is needed.
        retry_after_s: how long the server asks to wait, or None.
        missing: whether the server says that there is no such file.
    """

    def __init__(
        self,
        reason: str,
        *,
        expired: bool = False,
        retry_after_s: float | None = None,
        missing: bool = False,
    ) -> None:
        super().__init__(reason)
        self.expired = expired
        self.retry_after_s = retry_after_s
        self.missing = missing


def check_status(answer: Answer, path: str) -> None:
    """Pass only answers that carry the file.

    Raises:
        Transient: another try, perhaps with a new address, may help.
        UnavailableError: it will not.
    """
    status = answer.status
    if status in {200, 206}:
        return
    if status in _EXPIRED:
        raise Transient(f"HTTP {status}", expired=True, missing=status in {404, 410})
    if status in _LATER:
        raise Transient(f"HTTP {status}", retry_after_s=parse_retry_after(answer.retry_after))
    raise UnavailableError(
        f"The server answers HTTP {status} for {path!r}.", hint="Try again later."
    )


def parse_retry_after(text: str | None, now_s: float | None = None) -> float | None:
    """Return the seconds that a `Retry-After` header asks for; None when it says nothing.

    Args:
        text: seconds or an HTTP date.
        now_s: the present Unix time, for dates.
    """
    if text is None:
        return None
    if text.strip().isdigit():
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    return max(0.0, moment.timestamp() - (time.time() if now_s is None else now_s))


class Patience:
    """Counts tries in a row without progress, and waits between them.

    Args:
        limits: how many, how long.
        stop: ends a wait at once when set.
    """

    def __init__(self, limits: Limits, stop: threading.Event) -> None:
        self._limits = limits
        self._stop = stop
        self._failures = 0

    def refresh(self) -> None:
        """Start counting anew: there was progress."""
        self._failures = 0

    def wait(self, error: Exception, what: str) -> None:
        """Wait before the next try.

        Args:
            error: why the last one failed.
            what: what is being fetched, for the message.

        Raises:
            UnavailableError: enough tries, or the server asks for too long a wait.
            NotFoundError: enough tries, and the server says there is no such file.
        """
        self._failures += 1
        reason = str(error) or type(error).__name__
        if self._failures >= self._limits.attempts:
            kind = (
                NotFoundError
                if isinstance(error, Transient) and error.missing
                else UnavailableError
            )
            raise kind(
                f"Gave up on {what} after {self._failures} tries: {reason}.",
                hint="Pull again: what has arrived is kept and not fetched again.",
            ) from error
        asked_s = error.retry_after_s if isinstance(error, Transient) else None
        if asked_s is not None and asked_s > self._limits.longest_retry_after_s:
            raise UnavailableError(
                f"The server asks to wait {asked_s:.0f} s for {what}.",
                hint="Pull again then: what has arrived is kept and not fetched again.",
            ) from error
        self._stop.wait(self._delay_s() if asked_s is None else asked_s)

    def _delay_s(self) -> float:
        limits = self._limits
        ceiling = min(limits.longest_wait_s, limits.first_wait_s * 2 ** (self._failures - 1))
        # Spread, so that many clients do not come back at once; no secret depends on it.
        return random.uniform(ceiling / 2, ceiling)  # noqa: S311


class Pace:
    """Finds connections that drip: too few bytes in a window of time.

    Args:
        limits: window and least bytes.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._since_s = time.monotonic()
        self._bytes = 0

    def check(self, count_bytes: int) -> None:
        """Count bytes.

        Raises:
            Transient: the window that just ended had too few.
        """
        self._bytes += count_bytes
        now_s = time.monotonic()
        if now_s - self._since_s < self._limits.pace_window_s:
            return
        if self._bytes < self._limits.pace_bytes:
            raise Transient(f"{self._bytes} bytes in {now_s - self._since_s:.0f} s")
        self._since_s, self._bytes = now_s, 0
