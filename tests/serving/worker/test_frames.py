from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import (
    BY_TYPE,
    InvalidInputError,
    LoadError,
    PayloadTooLargeError,
    ServingError,
    WorkerGoneError,
)
from serving.worker.board import RunningBoard
from serving.worker.client import DECODER, WorkerClient
from serving.worker.frames import Channel, FrameError
from serving.worker.messages import (
    Answer,
    Cancel,
    Done,
    FromWorker,
    Load,
    Loaded,
    LoadFailed,
    Ping,
    Predict,
    PredictRequest,
    Problem,
    Refused,
    ToWorker,
    WorkerPlan,
)

WORKER_DECODER = msgspec.msgpack.Decoder[ToWorker](ToWorker)
Ends = tuple[Channel[Any], Channel[Any]]


def with_channels(body: Callable[[Ends], Awaitable[None]], **options: Any) -> None:
    async def run() -> None:
        ours, theirs = socket.socketpair()
        first = Channel(*await asyncio.open_unix_connection(sock=ours), DECODER, **options)
        second = Channel(
            *await asyncio.open_unix_connection(sock=theirs), WORKER_DECODER, **options
        )
        try:
            await body((first, second))
        finally:
            for end in (first, second):
                end.close()
                await end._writer.wait_closed()

    asyncio.run(asyncio.wait_for(run(), 60))


MESSAGES: list[ToWorker] = [
    Load(WorkerPlan("/models/x", "text-classification", "onnx")),
    Predict(1, PredictRequest(["a", {"text": "b"}], {"top_k": None}, 1.5)),
    Cancel(1),
    Ping(2),
]


def test_messages_arrive_as_they_were_sent() -> None:
    async def body(ends: Ends) -> None:
        ours, theirs = ends
        for message in MESSAGES:
            ours.send(message)
        for message in MESSAGES:
            assert await theirs.receive() == message
        replies: list[FromWorker] = [
            Loaded("t", "onnx", 7, 0.1),
            LoadFailed(Problem.of(LoadError("no"))),
            Answer(1, [Done([{"label": "x", "score": 0.5}], 3, [1], 0.0, 0.0, 0.0, 0.0)]),
            Refused(2, Problem.of(InvalidInputError("no", hint="yes", retry_after_s=2))),
        ]
        for reply in replies:
            theirs.send(reply)
        for reply in replies:
            assert await ours.receive() == reply
        theirs.close()
        assert await ours.receive() is None

    with_channels(body)


def test_a_frame_has_a_limit_on_both_sides() -> None:
    async def body(ends: Ends) -> None:
        ours, theirs = ends
        with pytest.raises(FrameError, match="limit 100"):
            ours.send(Predict(1, PredictRequest(["x" * 200])))
        ours._writer.write((101).to_bytes(4, "big") + b"x" * 101)
        with pytest.raises(FrameError, match="limit 100"):
            await theirs.receive()

    with_channels(body, max_frame_bytes=100)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60))
def test_bytes_that_are_no_message_are_a_frame_error(payload: bytes) -> None:
    async def body(ends: Ends) -> None:
        ours, theirs = ends
        ours._writer.write(len(payload).to_bytes(4, "big") + payload)
        ours.close()
        try:
            message = await theirs.receive()
        except FrameError:
            return
        assert isinstance(message, Load | Predict | Cancel | Ping)

    with_channels(body)


@pytest.mark.parametrize("kind", BY_TYPE.values())
def test_every_error_crosses_the_boundary(kind: type[ServingError]) -> None:
    if kind.error_type == "prepare":
        pytest.skip("stays in the HTTP process")
    error = kind("what", hint="next", retry_after_s=3.0)
    back = msgspec.msgpack.decode(msgspec.msgpack.encode(Problem.of(error)), type=Problem).error()
    assert type(back) is kind
    assert (back.message, back.hint, back.retry_after_s) == ("what", "next", 3.0)


async def loaded_client(ends: Ends, board: RunningBoard) -> WorkerClient:
    ours, theirs = ends
    client = WorkerClient(ours, board)
    loading = asyncio.create_task(client.load(WorkerPlan("/x", "t", "onnx")))
    assert isinstance(await theirs.receive(), Load)
    theirs.send(Loaded("t", "onnx", 1, 0.0))
    await loading
    return client


def with_client(body: Callable[[WorkerClient, Channel[Any]], Awaitable[None]], **o: Any) -> None:
    async def run(ends: Ends) -> None:
        import os

        board, fd = RunningBoard.create(1, 4)
        os.close(fd)
        client = await loaded_client(ends, board)
        await body(client, ends[1])
        client.close()
        await client.wait_closed()
        board.close()

    with_channels(run, **o)


def test_answers_find_their_requests_in_any_order() -> None:
    async def body(client: WorkerClient, worker: Channel[Any]) -> None:
        asking = [asyncio.create_task(client.predict(PredictRequest([n]))) for n in range(5)]
        received = [await worker.receive() for _ in range(5)]
        for message in reversed(received):
            done = Done(message.request.items[0] * 10, 1, [1], 0, 0, 0, 0)
            worker.send(Answer(message.id, [done]))
        answers = await asyncio.gather(*asking)
        assert [outcome.value for (outcome,) in answers] == [0, 10, 20, 30, 40]  # type: ignore[union-attr]

    with_client(body)


def test_a_caller_that_gives_up_is_told_to_the_worker() -> None:
    async def body(client: WorkerClient, worker: Channel[Any]) -> None:
        asking = asyncio.create_task(client.predict(PredictRequest(["a"])))
        sent = await worker.receive()
        asking.cancel()
        cancelled = await worker.receive()
        assert isinstance(cancelled, Cancel)
        assert cancelled.id == sent.id
        # A late answer to it harms nobody.
        worker.send(Answer(sent.id, []))
        pinging = asyncio.create_task(client.ping(30))
        ping = await worker.receive()
        worker.send(Answer(ping.id, []))
        assert await pinging

    with_client(body)


def test_a_request_too_large_for_a_frame_is_refused_here() -> None:
    async def body(client: WorkerClient, worker: Channel[Any]) -> None:
        with pytest.raises(PayloadTooLargeError):
            await client.predict(PredictRequest(["x" * 1000]))

    with_client(body, max_frame_bytes=500)


def test_when_the_worker_goes_all_who_wait_are_told() -> None:
    async def body(client: WorkerClient, worker: Channel[Any]) -> None:
        asking = [asyncio.create_task(client.predict(PredictRequest([n]))) for n in range(3)]
        for _ in range(3):
            await worker.receive()
        worker.close()
        results = await asyncio.gather(*asking, return_exceptions=True)
        assert [type(result) for result in results] == [WorkerGoneError] * 3
        assert client.lost.is_set()
        with pytest.raises(WorkerGoneError):
            await client.predict(PredictRequest(["late"]))
        assert not await client.ping(1)

    with_client(body)
