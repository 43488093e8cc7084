"""The HTTP process's end of a worker: one connection, many requests at once.

A `Predictor`. When the worker dies, requests that were inside its engine fail with
WorkerCrashedError; those that still waited fail with WorkerGoneError and may be sent again,
because a prediction has no side effect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import msgspec

from serving.errors import (
    LoadError,
    PayloadTooLargeError,
    WorkerCrashedError,
    WorkerGoneError,
)
from serving.worker.board import RunningBoard
from serving.worker.frames import Channel, FrameError
from serving.worker.messages import (
    Answer,
    Cancel,
    FromWorker,
    Load,
    Loaded,
    LoadFailed,
    Outcome,
    Pieces,
    Ping,
    Predict,
    PredictRequest,
    Tell,
    WorkerPlan,
)

DECODER: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)


class WorkerClient:
    """Requests to one worker, multiplexed by id.

    Args:
        channel: connected to the worker.
        board: shared with the worker; read when it dies.
    """

    def __init__(self, channel: Channel[FromWorker], board: RunningBoard) -> None:
        self._channel = channel
        self._board = board
        self._waiting: dict[int, asyncio.Future[list[Outcome]]] = {}
        self._streams: dict[int, Tell] = {}
        self._last_id = 0
        self._reader: asyncio.Task[None] | None = None
        self._closed = False
        self.lost = asyncio.Event()

    async def load(self, plan: WorkerPlan) -> Loaded:
        """Have the worker load `plan`; requests may follow.

        Raises:
            LoadError: the worker could not load it, or died while it tried.
        """
        try:
            self._channel.send(Load(plan))
            await self._channel.drain()
            answer = await self._channel.receive()
        except (ConnectionError, FrameError) as error:
            raise LoadError(f"The worker broke off while loading: {error}") from error
        if isinstance(answer, Loaded):
            self._reader = asyncio.create_task(self._read())
            return answer
        if isinstance(answer, LoadFailed):
            problem = answer.problem
            raise LoadError(problem.message, hint=problem.hint)
        raise LoadError(
            "The worker died while loading.", hint="Its last words are in the server's log."
        )

    async def predict(self, request: PredictRequest, tell: Tell | None = None) -> list[Outcome]:
        """Return one outcome per item; see `messages.Predictor`, and `messages.Predict`."""
        self._last_id += 1
        identifier = self._last_id
        if self.lost.is_set() or self._closed:
            raise WorkerGoneError("The worker has ended.", retry_after_s=1)
        try:
            self._channel.send(Predict(identifier, request, tell is not None))
        except FrameError as error:
            raise PayloadTooLargeError(
                "The request is too large.", hint="Send fewer items in one request."
            ) from error
        if tell is not None:
            self._streams[identifier] = tell
        try:
            return await self._reply(identifier)
        finally:
            self._streams.pop(identifier, None)

    async def ping(self, timeout_s: float) -> bool:
        """Return whether the worker's loop answers in time."""
        self._last_id += 1
        if self.lost.is_set() or self._closed:
            return False
        self._channel.send(Ping(self._last_id))
        try:
            async with asyncio.timeout(timeout_s):
                await self._reply(self._last_id)
        except (TimeoutError, WorkerCrashedError, WorkerGoneError):
            return False
        return True

    def close(self) -> None:
        """End the connection; the worker exits when it sees that."""
        self._closed = True
        self._channel.close()

    async def wait_closed(self) -> None:
        """Wait until every request has been told that the worker is gone."""
        if self._reader is not None:
            await self._reader

    async def _reply(self, identifier: int) -> list[Outcome]:
        future: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
        self._waiting[identifier] = future
        try:
            await _unless_gone(self._channel.drain())
            return await future
        except asyncio.CancelledError:
            if identifier in self._waiting and not self.lost.is_set() and not self._closed:
                self._channel.send(Cancel(identifier))
            raise
        finally:
            self._waiting.pop(identifier, None)

    async def _read(self) -> None:
        try:
            while (message := await self._channel.receive()) is not None:
                self._deliver(message)
        except FrameError:
            # What follows a bad frame cannot be trusted; the supervisor ends the process.
            self._channel.close()
        self._fail_all()

    def _deliver(self, message: FromWorker) -> None:
        if isinstance(message, Loaded | LoadFailed):
            return
        if isinstance(message, Pieces):
            tell = self._streams.get(message.id)
            if tell is not None:
                tell(message.pieces)
            return
        future = self._waiting.get(message.id)
        if future is None or future.done():
            return
        if isinstance(message, Answer):
            future.set_result(message.outcomes)
        else:
            future.set_exception(message.problem.error())

    def _fail_all(self) -> None:
        inside = self._board.read()
        self.lost.set()
        for identifier, future in self._waiting.items():
            if future.done():
                continue
            if identifier in inside:
                future.set_exception(
                    WorkerCrashedError(
                        "The worker died while it worked on this request.",
                        hint="It is being started again. Send again once; "
                        "if the worker dies again, the input or the model is at fault.",
                        retry_after_s=1,
                    )
                )
            else:
                future.set_exception(WorkerGoneError("The worker has ended.", retry_after_s=1))


async def _unless_gone(sending: Awaitable[None]) -> None:
    """Await a drain; a broken connection is told by the reader, to every request alike."""
    try:
        await sending
    except ConnectionError:
        return
