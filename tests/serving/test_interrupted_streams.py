"""Streams while things die, move and stop: each ends whole, or with an event that says why."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from serving.config import RestartPolicy
from serving.deployment import Deployment
from serving.prepare.plan import Prepared
from serving.streaming import Last, Streaming
from serving.worker.messages import PredictRequest, WorkerPlan
from serving.worker.process import WorkerProcess, start_worker
from tests.generation_models import TinyDecoders
from tests.serving.server_process import ServerProcess, server_process

URL = "/models/writer"
CONTEXT = 3000
TOKENS = 2500
"""So many that a worker can be held long before it is through."""

LONG = {"do_sample": False, "max_new_tokens": TOKENS, "min_new_tokens": TOKENS}
SHORT = {"do_sample": False, "max_new_tokens": 8, "details": True}


@pytest.fixture(scope="module")
def export(tiny_decoders: TinyDecoders) -> Path:
    """A decoder whose answers take a while."""
    return tiny_decoders.get(context=CONTEXT)[1].path


@contextmanager
def held_stream(
    server: ServerProcess,
) -> Iterator[tuple[int, Iterator[dict[str, Any]]]]:
    """Begin a stream and hold its worker still after the first token."""
    pid = int(server.model("writer")["worker_pid"])
    body = {"inputs": "the film", "stream": True, "parameters": LONG}
    for _ in range(5):
        with httpx.stream("POST", server.url + URL, json=body, timeout=60) as answer:
            assert answer.status_code == 200
            lines = answer.iter_lines()
            events = (json.loads(line[5:]) for line in lines if line.startswith("data:"))
            assert next(events)["index"] == 1
            os.kill(pid, signal.SIGSTOP)
            try:
                # On a crowded machine it may have been through before it was held.
                if server.model("writer")["in_flight"]:
                    yield pid, events
                    return
            finally:
                if psutil.pid_exists(pid):
                    os.kill(pid, signal.SIGCONT)
    pytest.fail("no stream could be held")


def complete(events: Iterator[dict[str, Any]]) -> None:
    """Read the rest of a stream that was not cut short."""
    told = list(events)
    assert [one["index"] for one in told] == list(range(2, TOKENS + 1))
    assert told[-1]["details"]["generated_tokens"] == TOKENS


def test_a_worker_killed_in_mid_stream_ends_it_with_an_error(export: Path, tmp_path: Path) -> None:
    arguments = (f"writer={export}", "--no-report", "--threads", "1")
    with server_process(tmp_path, *arguments) as server:
        with held_stream(server) as (pid, events):
            os.kill(pid, signal.SIGKILL)
            told = list(events)
        assert all("token" in one for one in told[:-1])
        assert told[-1]["error_type"] == "worker-crashed"
        assert "error" in told[-1]
        server.wait_for("replica.restarted")
        server.until_ready()
        body = {"inputs": "the film", "parameters": SHORT}
        again = httpx.post(server.url + URL, json=body, timeout=60)
        assert again.status_code == 200
        facts = server.model("writer")
        assert facts["worker_pid"] != pid
        assert facts["in_flight"] == 0
        counted = httpx.get(f"{server.url}/metrics").text
        assert 'runport_items_in_flight{deployment="writer"} 0.0' in counted


def test_a_server_that_stops_lets_a_stream_finish(export: Path, tmp_path: Path) -> None:
    arguments = (f"writer={export}", "--no-report", "--threads", "1", "--drain-timeout", "50")
    with server_process(tmp_path, *arguments) as server:
        with held_stream(server) as (pid, events):
            server.process.send_signal(signal.SIGTERM)
            server.wait_for("serve.draining")
            os.kill(pid, signal.SIGCONT)
            complete(events)
        assert server.end() == 0


def test_a_stream_that_outlasts_the_drain_ends_with_an_error(export: Path, tmp_path: Path) -> None:
    arguments = (f"writer={export}", "--no-report", "--threads", "1", "--drain-timeout", "1")
    with server_process(tmp_path, *arguments) as server:
        with held_stream(server) as (_, events):
            server.process.send_signal(signal.SIGTERM)
            told = list(events)
        assert told[-1]["error_type"] == "not-ready"
        assert server.end() == 0


def test_a_swap_lets_a_stream_finish_with_its_version(export: Path) -> None:
    async def prepare(reference: str) -> Prepared:
        return Prepared(
            reference=reference,
            pinned_name=f"local/local/{reference}",
            digest=reference * 8,
            directory=str(export),
            task="",
            engine="onnx",
            reason="the test says so",
            followed=True,
        )

    async def launch(label: str, version: Prepared) -> WorkerProcess:
        plan = WorkerPlan(version.directory, version.task, version.engine)
        return await start_worker(label, plan, dict(os.environ), timeout_s=60)

    async def body() -> None:
        deployment = Deployment(
            "writer",
            "old",
            prepare=prepare,
            launch=launch,
            policy=RestartPolicy(),
            drain_timeout_s=50,
        )
        await deployment.start()
        try:
            await swap_under_a_stream(deployment)
        finally:
            await deployment.stop()

    asyncio.run(asyncio.wait_for(body(), 120))


async def swap_under_a_stream(deployment: Deployment) -> None:
    ended: list[BaseException | None] = []

    def stream(parameters: dict[str, Any]) -> Streaming:
        request = PredictRequest(["the film"], {**parameters, "details": True}, 60.0)
        return Streaming(deployment, request, lambda _, error: ended.append(error))

    pid = deployment.describe()["worker_pid"]
    streaming = await stream(LONG).open()
    os.kill(pid, signal.SIGSTOP)
    events = streaming.events()
    deployment.want("new")
    while deployment.version is None or deployment.version.reference != "new":  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    fresh = await stream(SHORT).open()
    assert fresh.version is not None
    assert fresh.version.reference == "new"
    assert [one async for one in fresh.events()]
    os.kill(pid, signal.SIGCONT)
    *_, last = [one async for one in events]
    assert isinstance(last, Last)
    assert last.final["details"]["generated_tokens"] == TOKENS
    assert streaming.version is not None
    assert streaming.version.reference == "old"
    assert ended == [None, None]
    while psutil.pid_exists(pid):  # noqa: ASYNC110 - the old worker ends by itself
        await asyncio.sleep(0.005)
