"""The one object that serving talks to: record, served versions, Prometheus, start and stop."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import structlog

from serving.telemetry import metrics, prometheus, reports
from serving.telemetry.outbox import Outbox
from serving.telemetry.records import GaugeSample, RequestRecord, ServedVersion
from serving.telemetry.reports import Report, Stream, VersionStarted, VersionStopped, WindowClosed
from serving.telemetry.supervise import ReporterCommand, Supervisor
from serving.telemetry.windows import Window, WindowSet, next_boundary_s

_log = structlog.get_logger(__name__)

GaugeHook = Callable[[], Iterable[GaugeSample]]

MIN_CAP_BYTES = 2**20
_DISK_TIMEOUT_S = 5.0


class Telemetry:
    """Counts requests, keeps windows durable and a reporter running.

    Args:
        spool_dir: folder for durable windows; made when missing.
        window_s: length of a window in seconds, aligned to the monotonic clock.
        reporter: how to start the W&B reporter; None for Prometheus only, without a spool.
        cap_bytes: most bytes that the spool keeps, at least `MIN_CAP_BYTES`.
        drain_timeout_s: how long `stop` waits for the reporter to deliver the rest.

    `record` and the other plain methods may be called before `start` and after `stop`,
    `record` and `render_prometheus` from any thread.

    Raises:
        ValueError: `window_s` or `cap_bytes` is too small.
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
        if window_s <= 0 or cap_bytes < MIN_CAP_BYTES:
            raise ValueError(f"window_s must be above 0 and cap_bytes at least {MIN_CAP_BYTES}")
        self._window_s = window_s
        self._drain_timeout_s = drain_timeout_s
        self._windows = WindowSet()
        self._gauge_hooks: list[GaugeHook] = []
        self._instance = secrets.token_hex(8)
        self._versions: dict[tuple[str, str], ServedVersion] = {}
        self._serving: dict[tuple[str, str], Stream] = {}
        self._outbox = Outbox(spool_dir, cap_bytes=cap_bytes) if reporter else None
        self._supervisor = Supervisor(reporter) if reporter else None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the spool, begin the windows and start the reporter; never raises.

        A spool that cannot be opened is logged and tried again at every window:
        serving goes on without reports.
        """
        if self._outbox is not None and self._task is None:
            await self._flush()
            self._task = asyncio.create_task(self._close_windows(), name="telemetry-windows")

    def version_started(self, version: ServedVersion) -> None:
        """Say that a version is served from now on: its W&B run opens, with its facts."""
        key = (version.deployment, version.pinned_name)
        self._versions[key] = version
        if self._outbox is not None and reports.is_artifact_name(version.pinned_name):
            self._serving[key] = self._stream(*key, version.digest)
            self._outbox.put(reports.encode(VersionStarted(self._serving[key])))

    def version_stopped(self, deployment: str, pinned_name: str) -> None:
        """Say that a version answered its last request: its W&B run is finished."""
        self._close_into_outbox()
        stream = self._serving.pop((deployment, pinned_name), None)
        if stream is not None and self._outbox is not None:
            self._outbox.put(reports.encode(VersionStopped(stream)))

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
        return prometheus.render(self._windows.totals(), [*gauges, *self._own_gauges()])

    def reporter_process_id(self) -> int | None:
        """Return the reporter's process id; None while it is down or there is none."""
        return self._supervisor.process_id if self._supervisor else None

    async def stop(self) -> None:
        """Spool the last windows and give the reporter `drain_timeout_s` to deliver them.

        What it does not deliver in time stays in the spool for the next server.
        """
        if self._task is None or self._outbox is None or self._supervisor is None:
            return
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._task = None
        for key in list(self._serving):
            self.version_stopped(*key)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._flush(), _DISK_TIMEOUT_S)
        if not await self._supervisor.stop(self._drain_timeout_s):
            _log.warning("telemetry.undelivered", hint="the next server's reporter delivers it")
        await self._outbox.close(_DISK_TIMEOUT_S)

    async def _close_windows(self) -> None:
        """At each boundary of the monotonic clock, close the windows and spool them."""
        while True:
            now_s = time.monotonic()
            await asyncio.sleep(next_boundary_s(now_s, self._window_s) - now_s)
            await self._flush()

    async def _flush(self) -> None:
        if self._outbox is None or self._supervisor is None:
            return
        self._close_into_outbox()
        await self._outbox.flush()
        if self._outbox.lane is not None:
            self._supervisor.start(self._outbox.lane)

    def _close_into_outbox(self) -> None:
        if self._outbox is None:
            return
        for window in self._windows.close():
            if reports.is_artifact_name(window.key.pinned_name):
                self._outbox.put(reports.encode(self._report(window, self._outbox.dropped)))

    def _report(self, window: Window, dropped: int) -> Report:
        deployment, pinned_name, digest = window.key
        # A version that nobody announced is still finished when the server stops.
        stream = self._serving.setdefault(
            (deployment, pinned_name), self._stream(deployment, pinned_name, digest)
        )
        return WindowClosed(
            stream,
            window.index,
            metrics.window_metrics(window, dropped=dropped),
            window.aggregate.batch_sizes,
            metrics.running_totals(window),
        )

    def _stream(self, deployment: str, pinned_name: str, digest: str) -> Stream:
        version = self._versions.get((deployment, pinned_name))
        config: dict[str, str | int | float | bool] = {
            "deployment": deployment,
            "version": pinned_name,
            "digest": digest,
            "host": socket.gethostname(),
            "instance": self._instance,
            "window_s": self._window_s,
        }
        if version is not None:
            config |= {**version.facts, "engine": version.engine, "task": version.task}
        return Stream(self._instance, deployment, pinned_name, digest, config)

    def _own_gauges(self) -> Iterator[GaugeSample]:
        if self._outbox is None or self._supervisor is None:
            return
        up = self._supervisor.process_id is not None
        yield GaugeSample("reporter_up", "Whether the W&B reporter process runs.", up)
        yield GaugeSample(
            "reporter_restarts", "Times the reporter was started again.", self._supervisor.restarts
        )
        yield GaugeSample("spool_depth", "Reports that W&B does not have yet.", self._outbox.depth)
        yield GaugeSample("spool_dropped", "Reports lost to the spool's cap.", self._outbox.dropped)
