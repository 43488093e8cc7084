"""The one object that serving talks to: record, served versions, Prometheus, start and stop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import structlog

from serving.telemetry import prometheus
from serving.telemetry.records import GaugeSample, RequestRecord, ServedVersion
from serving.telemetry.supervise import ReporterCommand
from serving.telemetry.windows import WindowSet

_log = structlog.get_logger(__name__)

GaugeHook = Callable[[], Iterable[GaugeSample]]


class Telemetry:
    """Counts requests, keeps windows durable and a reporter running.

    Args:
        spool_dir: folder for durable windows; made when missing.
        window_s: length of a window in seconds, aligned to the monotonic clock.
        reporter: how to start the W&B reporter; None for Prometheus only, without a spool.
        cap_bytes: most bytes that the spool keeps.
        drain_timeout_s: how long `stop` waits for the reporter to deliver the rest.

    `record` and the other plain methods may be called before `start` and after `stop`.
    """

    def __init__(
        self,
        spool_dir: Path,
        *,
        window_s: float = 10.0,
        reporter: ReporterCommand | None = None,
        cap_bytes: int = 64 * 2**20,
        drain_timeout_s: float = 10.0,
    ) -> None:
        self._spool_dir = spool_dir
        self._window_s = window_s
        self._reporter = reporter
        self._cap_bytes = cap_bytes
        self._drain_timeout_s = drain_timeout_s
        self._windows = WindowSet()
        self._gauge_hooks: list[GaugeHook] = []

    async def start(self) -> None:
        """Open the spool, begin the windows and start the reporter; never raises.

        A spool that cannot be opened is logged: serving goes on without reports.
        """

    def version_started(self, version: ServedVersion) -> None:
        """Say that a version is served from now on, so that its W&B run gets its facts."""

    def version_stopped(self, deployment: str, pinned_name: str) -> None:
        """Say that a version is not served any more, so that its W&B run is finished."""

    def record(self, record: RequestRecord) -> None:
        """Count one answered request: microseconds, never blocks, never raises."""
        try:
            self._windows.record(record)
        except Exception:
            _log.exception("telemetry.record_failed")

    def add_gauges(self, hook: GaugeHook) -> None:
        """Ask `hook` for current values (queue depth, …) at every Prometheus scrape."""
        self._gauge_hooks.append(hook)

    def render_prometheus(self) -> bytes:
        """Return the Prometheus text exposition (`prometheus.CONTENT_TYPE`)."""
        gauges = [sample for hook in self._gauge_hooks for sample in hook()]
        return prometheus.render(self._windows.totals(), gauges)

    async def stop(self) -> None:
        """Spool the last windows and give the reporter `drain_timeout_s` to deliver them."""
