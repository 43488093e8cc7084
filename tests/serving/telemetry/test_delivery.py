"""Delivery against a W&B that stores late, forgets what it had not stored, and fails."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.telemetry import reports
from serving.telemetry.frames import Entry
from serving.telemetry.reporter.delivery import Deliverer, Patience, ReportError, StalledError
from serving.telemetry.reports import Stream, VersionStarted, VersionStopped, WindowClosed
from serving.telemetry.spool import SpoolWriter
from serving.telemetry.spool_reader import SpoolReader


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class StoredRun:
    """What W&B's server has of a run."""

    steps: list[int] = field(default_factory=list)
    state: str = "running"
    opened: int = 0


class OpenRun:
    """A client's run: rows wait in its memory until the server takes them."""

    def __init__(self, server: Server, stored: StoredRun) -> None:
        self._server = server
        self._stored = stored
        self._closed = False
        self.sending: list[int] = []
        self.first_stored_step = max(stored.steps, default=-1)

    def log(self, window: WindowClosed) -> None:
        if self._closed:
            raise ReportError("the run is finished")
        self.sending.append(window.index)

    def stored_step(self) -> int:
        self._server.check()
        return -1 if self._server.lags else max(self._stored.steps, default=-1)

    def finish(self, exit_code: int) -> None:
        if self._closed:
            # As in the SDK: only the first call does anything, even when it failed.
            return
        self._closed = True
        self._server.check()
        self.transmit()
        self._stored.state = "failed" if exit_code else "finished"

    def transmit(self) -> None:
        # The server writes by offset, as the file stream does.
        self._stored.steps.extend(self.sending)
        self.sending.clear()


class Server:
    """W&B in memory, behind the `RunLog` seam."""

    def __init__(self) -> None:
        self.runs: dict[str, StoredRun] = {}
        self.clients: list[OpenRun] = []
        self.up = True
        self.lags = False

    def check(self) -> None:
        if not self.up:
            raise ReportError("down")

    def open(self, stream: Stream) -> OpenRun:
        self.check()
        stored = self.runs.setdefault(stream.deployment + stream.instance, StoredRun())
        stored.state = "running"
        stored.opened += 1
        self.clients.append(OpenRun(self, stored))
        return self.clients[-1]

    def transmit(self) -> None:
        if self.up:
            for client in self.clients:
                client.transmit()

    def forget_clients(self) -> None:
        """The reporter was killed: what its clients had not sent is gone."""
        self.clients.clear()


def stream(deployment: str = "bert", instance: str = "i1") -> Stream:
    return Stream(instance, deployment, "acme/nlp/run-bert:v1", "ab" * 32)


def window(index: int, of: Stream) -> bytes:
    return reports.encode(WindowClosed(of, index, {"requests": 1.0}, {1: 1}, {}))


def started(of: Stream) -> bytes:
    return reports.encode(VersionStarted(of))


def stopped(of: Stream) -> bytes:
    return reports.encode(VersionStopped(of))


@dataclass
class Bench:
    lane: Path
    server: Server = field(default_factory=Server)
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.writer = SpoolWriter(self.lane, cap_bytes=2**20)
        assert self.writer.try_open()
        self.restart()

    def restart(self) -> None:
        self.server.forget_clients()
        self.reader = SpoolReader(self.lane)
        self.deliverer = Deliverer(
            self.reader,
            self.server.open,
            clock=self.clock,
            patience=Patience(backoff_first_s=1.0, backoff_most_s=4.0, stall_s=50.0),
        )

    def settle(self) -> None:
        for _ in range(20):
            self.clock.now_s += 5
            if self.deliverer.turn():
                return
            self.server.transmit()
        raise AssertionError("not delivered")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_nothing_is_acknowledged_before_the_server_stores_it(bench: Bench) -> None:
    bench.writer.append([started(stream()), window(1, stream()), window(2, stream())])
    assert not bench.deliverer.turn()
    assert bench.reader.acknowledged == 0
    bench.server.transmit()
    assert bench.deliverer.turn()
    assert bench.reader.acknowledged == 3
    assert bench.server.runs["berti1"].steps == [1, 2]


def test_a_started_version_has_a_run_before_its_first_request(bench: Bench) -> None:
    bench.writer.append([started(stream())])
    assert bench.deliverer.turn()
    assert bench.server.runs["berti1"].state == "running"


def test_a_stopped_version_finishes_its_run_only(bench: Bench) -> None:
    one, two = stream("one"), stream("two")
    bench.writer.append([started(one), started(two), window(1, one), window(1, two), stopped(one)])
    bench.settle()
    assert bench.server.runs["onei1"].state == "finished"
    assert bench.server.runs["twoi1"].state == "running"


def test_a_version_served_again_goes_on_with_its_run(bench: Bench) -> None:
    bench.writer.append([started(stream()), window(1, stream()), stopped(stream())])
    bench.settle()
    bench.writer.append([started(stream()), window(2, stream())])
    bench.settle()
    run = bench.server.runs["berti1"]
    assert (run.steps, run.state) == ([1, 2], "running")


def test_a_window_after_the_stop_is_logged_and_the_run_finished_again(bench: Bench) -> None:
    bench.writer.append([window(1, stream()), stopped(stream())])
    assert not bench.deliverer.turn() or bench.server.runs["berti1"].steps == [1]
    bench.writer.append([window(2, stream()), stopped(stream())])
    bench.settle()
    run = bench.server.runs["berti1"]
    assert (run.steps, run.state) == ([1, 2], "finished")


def test_a_version_served_again_before_its_end_is_confirmed_runs_on(bench: Bench) -> None:
    bench.server.lags = True
    bench.writer.append([window(1, stream()), stopped(stream())])
    assert not bench.deliverer.turn()
    bench.writer.append([started(stream())])
    bench.server.lags = False
    bench.settle()
    run = bench.server.runs["berti1"]
    assert (run.steps, run.state) == ([1], "running")


def test_an_end_that_failed_is_tried_on_a_resumed_run(bench: Bench) -> None:
    bench.writer.append([window(1, stream())])
    bench.settle()
    bench.writer.append([stopped(stream())])
    bench.server.up = False
    bench.deliverer.turn()
    bench.server.up = True
    bench.settle()
    assert bench.server.runs["berti1"].state == "finished"


def test_a_replay_that_is_read_bit_by_bit_logs_nothing_again(bench: Bench) -> None:
    bench.writer.append([window(index, stream()) for index in (1, 2, 3)])
    bench.settle()
    (bench.lane / "ack.json").unlink()

    class Slow(SpoolReader):
        def read(self, limit: int) -> list[Entry]:
            return super().read(min(1, limit))

    bench.server.forget_clients()
    deliverer = Deliverer(Slow(bench.lane), bench.server.open, clock=bench.clock)
    for _ in range(4):
        deliverer.turn()
        bench.server.transmit()
    assert bench.server.runs["berti1"].steps == [1, 2, 3]


def test_a_new_server_says_that_the_old_one_failed(bench: Bench) -> None:
    bench.writer.append([window(1, stream(instance="old"))])
    bench.settle()
    bench.writer.append([started(stream(instance="new"))])
    bench.settle()
    assert bench.server.runs["bertold"].state == "failed"
    assert bench.server.runs["bertnew"].state == "running"


def test_with_wandb_down_everything_waits_and_then_arrives_once(bench: Bench) -> None:
    bench.writer.append([window(1, stream())])
    bench.settle()
    bench.server.up = False
    for index in range(2, 10):
        bench.writer.append([window(index, stream())])
        bench.clock.now_s += 5
        assert not bench.deliverer.turn()
    assert bench.reader.acknowledged == 1
    bench.server.up = True
    bench.settle()
    assert bench.server.runs["berti1"].steps == list(range(1, 10))


def test_tries_are_spaced_out_while_wandb_is_down(bench: Bench) -> None:
    tries = 0
    bench.server.up = False

    def count_and_fail(of: Stream) -> OpenRun:
        nonlocal tries
        tries += 1
        return bench.server.open(of)

    patience = Patience(backoff_first_s=1.0, backoff_most_s=8.0)
    deliverer = Deliverer(bench.reader, count_and_fail, clock=bench.clock, patience=patience)
    bench.writer.append([window(1, stream())])
    for _ in range(100):
        deliverer.turn()
        bench.clock.now_s += 1
    assert 10 <= tries <= 30


def test_a_stream_that_fails_holds_up_no_other(bench: Bench) -> None:
    good, bad = stream("good"), stream("bad")

    def refuse_bad(of: Stream) -> OpenRun:
        if of.deployment == "bad":
            raise ReportError("forbidden")
        return bench.server.open(of)

    deliverer = Deliverer(bench.reader, refuse_bad, clock=bench.clock)
    bench.writer.append([window(1, bad), window(1, good)])
    deliverer.turn()
    bench.server.transmit()
    deliverer.turn()
    assert bench.server.runs["goodi1"].steps == [1]
    assert bench.reader.acknowledged == 0


def test_rows_that_never_arrive_are_a_stall(bench: Bench) -> None:
    bench.writer.append([window(1, stream())])
    bench.deliverer.turn()
    bench.clock.now_s += 51
    with pytest.raises(StalledError):
        bench.deliverer.turn()
    bench.restart()
    bench.settle()
    assert bench.server.runs["berti1"].steps == [1]


def test_leaving_finishes_every_open_run(bench: Bench) -> None:
    bench.writer.append([started(stream("one")), window(1, stream("two"))])
    bench.deliverer.turn()
    assert bench.deliverer.end(exit_code=1)
    assert {run.state for run in bench.server.runs.values()} == {"failed"}
    assert bench.reader.acknowledged == 2


def test_an_entry_that_is_no_report_is_passed_over(bench: Bench) -> None:
    bench.writer.append([b"\xc1 from another age", window(1, stream())])
    bench.settle()
    assert bench.server.runs["berti1"].steps == [1]
    assert bench.reader.acknowledged == 2


actions = st.lists(
    st.sampled_from(["window", "other", "turn", "transmit", "kill", "down", "up", "stop"]),
    max_size=40,
)


@given(actions)
@settings(max_examples=60, deadline=None)
def test_each_window_arrives_once_whatever_happens(script: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        written = {"bert": 0, "other": 0}
        for action in script:
            bench.clock.now_s += 3
            match action:
                case "window" | "other":
                    name = "bert" if action == "window" else "other"
                    written[name] += 1
                    bench.writer.append([window(written[name], stream(name))])
                case "turn":
                    bench.deliverer.turn()
                case "transmit":
                    bench.server.transmit()
                case "kill":
                    bench.restart()
                case "down" | "up":
                    bench.server.up = action == "up"
                case "stop":
                    bench.writer.append([stopped(stream())])
        bench.server.up = True
        bench.restart()
        bench.settle()
        # And a replay of the lane by a reporter that lost its position changes nothing.
        (bench.lane / "ack.json").unlink(missing_ok=True)
        bench.restart()
        bench.settle()
        bench.writer.close()
    for name, count in written.items():
        stored = bench.server.runs.get(f"{name}i1", StoredRun())
        assert stored.steps == list(range(1, count + 1))
