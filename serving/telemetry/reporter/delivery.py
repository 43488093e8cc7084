"""Each window to its run, in order and once.

Owns what is delivered, retried and acknowledged; knows neither files nor W&B.
Every stream is delivered on its own: one that fails waits for its next try and
holds up no other. Nothing counts as delivered because it was sent: only the
step that the run's server says it stores moves the acknowledged position.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

import msgspec

from serving.telemetry import reports
from serving.telemetry.frames import Entry
from serving.telemetry.reports import Report, Stream, VersionStarted, VersionStopped, WindowClosed

_log = logging.getLogger(__name__)

_MAX_OUTSTANDING = 2000
"""Entries read and not acknowledged; above it reading waits, and the spool keeps the rest."""


class ReportError(Exception):
    """W&B did not take it now; trying again later may help."""


class StalledError(Exception):
    """W&B's client took windows long ago and its server still lacks them: start afresh."""


class RunLog(Protocol):
    """A W&B run that is open for one stream.

    Each method raises `ReportError` when W&B does not answer as it should.
    """

    @property
    def first_stored_step(self) -> int:
        """The last step that the server had when the run was opened; -1 for none."""

    def log(self, window: WindowClosed) -> None:
        """Hand over a window as the row of step `window.index`."""

    def stored_step(self) -> int:
        """Ask the server for the last step that it stores; -1 for none."""

    def finish(self, exit_code: int) -> None:
        """Send what is left and mark the run as over."""


class Source(Protocol):
    """Where entries come from and where their delivery is remembered."""

    @property
    def position(self) -> int:
        """Sequence of the last entry read or acknowledged."""

    def read(self, limit: int) -> list[Entry]:
        """Return up to `limit` further entries. Raises OSError."""

    def acknowledge(self, sequence: int) -> None:
        """Remember that everything up to `sequence` is delivered. Raises OSError."""


class Patience(NamedTuple):
    """How long to wait for what, in seconds."""

    backoff_first_s: float = 1.0
    backoff_most_s: float = 60.0
    stall_s: float = 120.0


_DEFAULT_PATIENCE = Patience()


class _Delivery:
    """The state of one stream's delivery."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.windows: deque[tuple[int, WindowClosed]] = deque()
        self.marks: list[int] = []
        self.run: RunLog | None = None
        self.finished = False
        self.exit_code: int | None = None
        self.logged_index = -1
        self.failures = 0
        self.retry_at_s = 0.0
        self.progress_at_s = 0.0

    def lowest_sequence(self) -> int | None:
        """Return the first sequence that is not delivered yet."""
        held = [*self.marks, *(sequence for sequence, _ in self.windows)]
        return min(held, default=None)

    def outstanding(self) -> int:
        return len(self.windows) + len(self.marks)

    def stored(self, step: int) -> bool:
        """Forget the windows that the server stores; say whether there were any."""
        before = len(self.windows)
        while self.windows and self.windows[0][1].index <= step:
            self.windows.popleft()
        return len(self.windows) < before


class Deliverer:
    """Takes turns over all streams of a lane.

    Args:
        source: the lane's reader.
        open_run: opens (or resumes) the W&B run of a stream; raises `ReportError`.
        clock: monotonic seconds.
        patience: time limits.
    """

    def __init__(
        self,
        source: Source,
        open_run: Callable[[Stream], RunLog],
        *,
        clock: Callable[[], float],
        patience: Patience = _DEFAULT_PATIENCE,
    ) -> None:
        self._source = source
        self._open_run = open_run
        self._clock = clock
        self._patience = patience
        self._deliveries: dict[str, _Delivery] = {}
        self._instance = ""

    def turn(self) -> bool:
        """Read, deliver what is due and acknowledge; say whether all is delivered and confirmed.

        Raises:
            StalledError: the server stores nothing of what was logged long ago.
            OSError: the lane cannot be read or acknowledged.
        """
        held = sum(delivery.outstanding() for delivery in self._deliveries.values())
        for entry in self._source.read(max(0, _MAX_OUTSTANDING - held)):
            self._take(entry)
        for delivery in list(self._deliveries.values()):
            self._advance(delivery)
        self._acknowledge()
        return not any(delivery.outstanding() for delivery in self._deliveries.values())

    def end(self, exit_code: int) -> bool:
        """Finish every run that is not over; say whether all of them are finished now."""
        for delivery in self._deliveries.values():
            if delivery.exit_code is None:
                delivery.exit_code = exit_code
        return self.turn() and not self._deliveries

    def _take(self, entry: Entry) -> None:
        try:
            report = reports.decode(entry.payload)
        except msgspec.MsgspecError as error:
            _log.warning("entry %d is no report and is left out: %s", entry.sequence, error)
            return
        self._note_instance(report.stream.instance)
        self._enqueue(self._delivery(report.stream), entry.sequence, report)

    def _note_instance(self, instance: str) -> None:
        """A new server's report says that the one before is gone, without having said so."""
        if instance != self._instance:
            self._instance = instance
            for delivery in self._deliveries.values():
                if delivery.exit_code is None:
                    delivery.exit_code = 1

    def _delivery(self, stream: Stream) -> _Delivery:
        delivery = self._deliveries.get(stream.run_id)
        if delivery is None:
            delivery = self._deliveries[stream.run_id] = _Delivery(stream)
        return delivery

    @staticmethod
    def _enqueue(delivery: _Delivery, sequence: int, report: Report) -> None:
        if delivery.finished:
            # Its end is sent but not confirmed yet: the run is resumed.
            delivery.run = None
        match report:
            case WindowClosed():
                delivery.windows.append((sequence, report))
            case VersionStarted():
                delivery.exit_code = None
                delivery.marks.append(sequence)
            case VersionStopped():
                delivery.exit_code = 0
                delivery.marks.append(sequence)

    def _advance(self, delivery: _Delivery) -> None:
        if self._clock() < delivery.retry_at_s:
            return
        try:
            self._deliver(delivery)
        except ReportError as error:
            self._back_off(delivery, error)
        else:
            delivery.failures = 0

    def _deliver(self, delivery: _Delivery) -> None:
        run = delivery.run or self._open(delivery)
        try:
            self._hand_over(delivery, run)
        except ReportError:
            # The SDK's run is of no more use: the next try resumes it.
            delivery.run = None
            raise
        if delivery.windows:
            self._confirm(delivery, run)
        if not delivery.windows:
            delivery.marks.clear()
            if delivery.finished:
                del self._deliveries[delivery.stream.run_id]

    def _open(self, delivery: _Delivery) -> RunLog:
        run = delivery.run = self._open_run(delivery.stream)
        delivery.finished = False
        delivery.logged_index = run.first_stored_step
        delivery.stored(run.first_stored_step)
        delivery.progress_at_s = self._clock()
        return run

    @staticmethod
    def _hand_over(delivery: _Delivery, run: RunLog) -> None:
        for _, window in delivery.windows:
            if window.index > delivery.logged_index:
                run.log(window)
                delivery.logged_index = window.index
        if delivery.exit_code is not None and not delivery.finished:
            run.finish(delivery.exit_code)
            delivery.finished = True

    def _confirm(self, delivery: _Delivery, run: RunLog) -> None:
        now_s = self._clock()
        if delivery.stored(run.stored_step()):
            delivery.progress_at_s = now_s
        elif now_s - delivery.progress_at_s > self._patience.stall_s:
            raise StalledError(
                f"run {delivery.stream.run_id} lacks {len(delivery.windows)} windows"
            )

    def _back_off(self, delivery: _Delivery, error: ReportError) -> None:
        delivery.failures += 1
        most_s = min(
            self._patience.backoff_most_s,
            self._patience.backoff_first_s * 2 ** min(delivery.failures - 1, 16),
        )
        wait_s = most_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        delivery.retry_at_s = self._clock() + wait_s
        _log.warning("run %s: %s; next try in %.1f s", delivery.stream.run_id, error, wait_s)

    def _acknowledge(self) -> None:
        lowest = [delivery.lowest_sequence() for delivery in self._deliveries.values()]
        held = [sequence for sequence in lowest if sequence is not None]
        self._source.acknowledge(min(held) - 1 if held else self._source.position)
