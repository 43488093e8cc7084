"""`Telemetry` with real processes in the reporter's place; the real reporter is in tests/e2e."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.telemetry import GaugeSample, ReporterCommand, RequestRecord, ServedVersion, Telemetry
from serving.telemetry.outbox import Outbox
from serving.telemetry.reports import Report, VersionStarted, VersionStopped, WindowClosed, decode
from serving.telemetry.spool_reader import SpoolReader

PINNED = "acme/nlp/run-bert:v1"

WAITS_FOR_ITS_LIFELINE = "import sys; sys.stdin.read()"
DIES_AT_ONCE = "raise SystemExit(3)"
IGNORES_EVERYTHING = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    time.sleep(60)
"""


def command(script: str) -> ReporterCommand:
    return ReporterCommand((sys.executable, "-c", script), dict(os.environ))


def record(pinned_name: str = PINNED) -> RequestRecord:
    return RequestRecord("bert", pinned_name, "ab" * 32, True, 200, 1, (1,), {"total": 3.0})


def spooled(spool_dir: Path) -> list[Report]:
    return [decode(entry.payload) for entry in SpoolReader(spool_dir / "lane-0").read(1000)]


async def until(condition: Callable[[], object], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def test_without_a_reporter_it_only_counts(tmp_path: Path) -> None:
    async def scenario() -> bytes:
        telemetry = Telemetry(tmp_path / "spool")
        telemetry.record(record())
        await telemetry.start()
        telemetry.version_started(ServedVersion("bert", PINNED, "ab" * 32))
        telemetry.record(record())
        telemetry.version_stopped("bert", PINNED)
        await telemetry.stop()
        return telemetry.render_prometheus()

    text = asyncio.run(scenario()).decode()
    assert 'runport_requests_total{deployment="bert"' in text
    assert " 2.0" in text
    assert "runport_reporter_up" not in text
    assert not (tmp_path / "spool").exists()


def test_windows_and_versions_reach_the_spool_in_order(tmp_path: Path) -> None:
    async def scenario() -> None:
        telemetry = Telemetry(tmp_path, window_s=0.05, reporter=command(WAITS_FOR_ITS_LIFELINE))
        await telemetry.start()
        version = ServedVersion("bert", PINNED, "ab" * 32, "onnx", "text-classification", {"x": 1})
        telemetry.version_started(version)
        telemetry.record(record())
        await until(lambda: any(isinstance(r, WindowClosed) for r in spooled(tmp_path)))
        telemetry.record(record())
        await telemetry.stop()

    asyncio.run(scenario())
    started, first, second, stopped = spooled(tmp_path)
    assert isinstance(started, VersionStarted)
    assert started.stream.config["engine"] == "onnx"
    assert started.stream.config["x"] == 1
    assert isinstance(first, WindowClosed)
    assert isinstance(second, WindowClosed)
    assert (first.index, second.index) == (1, 2)
    assert second.totals["total/requests"] == 2
    assert isinstance(stopped, VersionStopped)
    assert started.stream.run_id == second.stream.run_id


def test_versions_that_are_no_artifacts_are_not_reported(tmp_path: Path) -> None:
    async def scenario() -> bytes:
        telemetry = Telemetry(tmp_path, reporter=command(WAITS_FOR_ITS_LIFELINE))
        await telemetry.start()
        telemetry.version_started(ServedVersion("bert", "/models/bert", "ab" * 32))
        telemetry.record(record("/models/bert"))
        await telemetry.stop()
        return telemetry.render_prometheus()

    assert b"/models/bert" in asyncio.run(scenario())
    assert spooled(tmp_path) == []


def test_a_dead_reporter_is_started_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        telemetry = Telemetry(tmp_path, window_s=0.05, reporter=command(WAITS_FOR_ITS_LIFELINE))
        await telemetry.start()
        await until(telemetry.reporter_process_id)
        first = telemetry.reporter_process_id()
        assert first
        os.kill(first, signal.SIGKILL)
        await until(lambda: telemetry.reporter_process_id() not in (None, first))
        assert b"runport_reporter_restarts 1.0" in telemetry.render_prometheus()
        assert b"runport_reporter_up 1.0" in telemetry.render_prometheus()
        await telemetry.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "reporter",
    [command(DIES_AT_ONCE), ReporterCommand(("/nowhere/at-all",), {})],
    ids=["dies at once", "cannot be started"],
)
def test_a_reporter_that_never_runs_changes_nothing(
    tmp_path: Path, reporter: ReporterCommand
) -> None:
    async def scenario() -> None:
        telemetry = Telemetry(tmp_path, window_s=0.05, reporter=reporter)
        await telemetry.start()
        telemetry.record(record())
        await until(lambda: spooled(tmp_path))
        await telemetry.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize("stopped", [True, False], ids=["SIGSTOP", "ignores SIGTERM"])
def test_a_reporter_that_hangs_changes_nothing_and_is_ended(tmp_path: Path, stopped: bool) -> None:
    async def scenario() -> int:
        reporter = command(WAITS_FOR_ITS_LIFELINE if stopped else IGNORES_EVERYTHING)
        telemetry = Telemetry(tmp_path, window_s=0.05, reporter=reporter, drain_timeout_s=0.1)
        await telemetry.start()
        await until(telemetry.reporter_process_id)
        process_id = telemetry.reporter_process_id()
        assert process_id
        if stopped:
            os.kill(process_id, signal.SIGSTOP)
        for _ in range(20):
            telemetry.record(record())
            await asyncio.sleep(0.01)
        await telemetry.stop()
        return process_id

    process_id = asyncio.run(scenario())
    windows = [report for report in spooled(tmp_path) if isinstance(report, WindowClosed)]
    assert sum(window.metrics["requests"] for window in windows) == 20
    with pytest.raises(ProcessLookupError):
        os.kill(process_id, 0)


def test_a_disk_that_refuses_does_not_stop_counting_and_is_tried_again(tmp_path: Path) -> None:
    spool_dir = tmp_path / "spool"
    spool_dir.write_text("a file in the way")

    async def scenario() -> None:
        telemetry = Telemetry(spool_dir, window_s=0.05, reporter=command(WAITS_FOR_ITS_LIFELINE))
        await telemetry.start()
        telemetry.record(record())
        await until(lambda: b"runport_spool_depth 1.0" in telemetry.render_prometheus())
        assert telemetry.reporter_process_id() is None
        spool_dir.unlink()
        await until(telemetry.reporter_process_id)
        await telemetry.stop()

    asyncio.run(scenario())
    windows = [report for report in spooled(spool_dir) if isinstance(report, WindowClosed)]
    assert [window.metrics["requests"] for window in windows] == [1]


def test_recording_never_raises(tmp_path: Path) -> None:
    telemetry = Telemetry(tmp_path)
    nonsense: object = "not a record"
    telemetry.record(nonsense)  # type: ignore[arg-type]
    telemetry.record(record())
    assert b"runport_requests_total" in telemetry.render_prometheus()


def test_gauges_are_asked_for_at_each_scrape(tmp_path: Path) -> None:
    telemetry = Telemetry(tmp_path)
    depths = iter([1.0, 2.0])
    telemetry.add_gauges(lambda: [GaugeSample("queue_depth", "Waiting.", next(depths))])
    assert b"runport_queue_depth 1.0" in telemetry.render_prometheus()
    assert b"runport_queue_depth 2.0" in telemetry.render_prometheus()


@pytest.mark.parametrize(("window_s", "cap_bytes"), [(0, 2**20), (10, 1000)])
def test_limits_that_make_no_sense_are_refused(
    tmp_path: Path, window_s: float, cap_bytes: int
) -> None:
    with pytest.raises(ValueError, match="window_s"):
        Telemetry(tmp_path, window_s=window_s, cap_bytes=cap_bytes)


def test_the_reporter_does_not_inherit_the_callers_run() -> None:
    environment = {"WANDB_RUN_ID": "mine", "WANDB_API_KEY": "key", "PATH": "/bin"}
    reporter = ReporterCommand.for_this_python(environment)
    assert dict(reporter.environment) == {"WANDB_API_KEY": "key", "PATH": "/bin"}


def test_payloads_wait_in_bounded_memory_while_the_disk_refuses(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file in the way")

    async def scenario() -> Outbox:
        outbox = Outbox(tmp_path / "spool", cap_bytes=2**20)
        for number in range(5000):
            outbox.put(b"%d" % number)
        await outbox.flush()
        assert outbox.depth < 5000
        (tmp_path / "spool").unlink()
        await outbox.flush()
        await outbox.close(5)
        return outbox

    outbox = asyncio.run(scenario())
    entries = SpoolReader(tmp_path / "spool" / "lane-0").read(10_000)
    assert entries[-1].payload == b"4999"
    assert len(entries) + outbox.dropped == 5000
