"""The worker process: load one version, warm it, answer frames until the socket closes.

The socket is the only tie to the parent. When the parent dies, however it dies, the kernel
kills this process (PR_SET_PDEATHSIG) or the socket ends; both lead here to an exit.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import gc
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from registry import RegistryError
from serving.children import die_with_parent
from serving.engines.protocol import Engine
from serving.errors import InvalidRequestError, LoadError, PayloadTooLargeError, ServingError
from serving.generation.protocol import Piece
from serving.logs import configure_logs
from serving.tasks.protocol import Samples, Task
from serving.worker.batch import problem_of
from serving.worker.board import RunningBoard
from serving.worker.core import WorkerCore
from serving.worker.frames import Channel, FrameError
from serving.worker.generation import GenerationCore
from serving.worker.messages import (
    Answer,
    Cancel,
    Load,
    Loaded,
    LoadFailed,
    Outcome,
    Pieces,
    Predict,
    Problem,
    Refused,
    ToWorker,
    WorkerPlan,
)
from serving.worker.warmup import warm

_log = structlog.get_logger(__name__)

STREAM_LIMIT_BYTES = 2**20


def open_core(plan: WorkerPlan, board: RunningBoard) -> Opened:
    """Open task and engine that `plan` names, and what answers with them.

    Raises:
        LoadError: the plan names an engine that there is not.
        Exception: whatever the task or the engine says about a broken directory.
    """
    from serving.generation.tasks import TASKS, open_generation
    from serving.tasks import name_task

    directory, limits = Path(plan.directory), plan.limits
    name = name_task(directory, plan.task or None)
    if name not in TASKS:
        task, engine = open_model(plan)
        return Opened(name, engine.name, task.samples, WorkerCore(task, engine, limits, board))
    # One step at a time: the cores that callers of other tasks share are all its own.
    generation, decoder = open_generation(
        directory,
        name,
        engine=plan.engine,
        threads=limits.slots * plan.engine_threads,
        max_jobs=limits.max_batch_rows,
        cache_bytes=limits.cache_bytes,
    )
    core = GenerationCore(generation, decoder, limits, board)
    return Opened(name, decoder.name, generation.samples, core)


def open_model(plan: WorkerPlan) -> tuple[Task, Engine]:
    """Open the task and the engine that `plan` names.

    Raises:
        LoadError: the plan names an engine that there is not.
        Exception: whatever the task or the engine says about a broken directory.
    """
    from serving.tasks import open_task

    directory = Path(plan.directory)
    task = open_task(directory, plan.task or None)
    if plan.engine == "onnx":
        from serving.engines.onnx import open_onnx

        return task, open_onnx(directory, threads=plan.engine_threads)
    if plan.engine == "openvino":
        from serving.engines.openvino import open_openvino_engine

        return task, open_openvino_engine(
            directory, threads=plan.engine_threads, callers=plan.limits.slots
        )
    if plan.engine == "torch":
        from serving.engines.torch import open_torch

        return task, open_torch(directory, task=task.name, threads=plan.engine_threads)
    raise LoadError(
        f"There is no engine {plan.engine!r}.", hint="Engines are onnx, openvino and torch."
    )


@dataclass(frozen=True, slots=True)
class Opened:
    """A loaded version: names of task and engine, inputs to warm it with, what answers."""

    task: str
    engine: str
    samples: Samples
    core: WorkerCore | GenerationCore


class WorkerHost:
    """Serves one connection: loads what the first frame names, then answers requests."""

    def __init__(self, channel: Channel[ToWorker], board: RunningBoard) -> None:
        self._channel = channel
        self._board = board
        self._running: dict[int, asyncio.Task[None]] = {}

    async def run(self) -> int:
        """Serve until the other side closes; returns the exit status."""
        first = await self._channel.receive()
        if not isinstance(first, Load):
            return 0 if first is None else 1
        started = time.monotonic()
        try:
            opened = await asyncio.to_thread(open_core, first.plan, self._board)
            await opened.core.start()
            if first.plan.warmup:
                await warm(opened.core, opened.samples)
        # A panic in native code is a BaseException and no Exception; the parent
        # must hear of every one.
        except BaseException as error:
            await self._reply(LoadFailed(_load_problem(error)))
            return 1
        # What was loaded stays: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        load_s = time.monotonic() - started
        await self._reply(Loaded(opened.task, opened.engine, os.getpid(), load_s))
        await self._answer_all(opened.core)
        return 0

    async def _answer_all(self, core: WorkerCore | GenerationCore) -> None:
        while (message := await self._channel.receive()) is not None:
            if isinstance(message, Predict):
                work = asyncio.create_task(self._answer(core, message))
                self._running[message.id] = work
                work.add_done_callback(functools.partial(self._forget, message.id))
            elif isinstance(message, Cancel):
                work_or_none = self._running.get(message.id)
                if work_or_none is not None:
                    work_or_none.cancel()
            elif not isinstance(message, Load):
                await self._reply(Answer(message.id, []))

    def _forget(self, identifier: int, _: asyncio.Task[None]) -> None:
        self._running.pop(identifier, None)

    async def _answer(self, core: WorkerCore | GenerationCore, message: Predict) -> None:
        reply: Answer | Refused
        try:
            reply = Answer(message.id, await self._outcomes(core, message))
        except ServingError as error:
            reply = Refused(message.id, Problem.of(error))
        except asyncio.CancelledError:
            return
        except BaseException as error:
            reply = Refused(message.id, problem_of(error, "core"))
        await self._reply(reply)

    async def _outcomes(self, core: WorkerCore | GenerationCore, message: Predict) -> list[Outcome]:
        if not message.stream:
            return await core.predict(message.request, request_id=message.id)
        if not isinstance(core, GenerationCore):
            raise InvalidRequestError(
                "The answers of this task cannot be streamed.", hint='Leave out "stream".'
            )

        def tell(pieces: list[Piece]) -> None:
            self._channel.send(Pieces(message.id, pieces))

        return await core.predict(message.request, request_id=message.id, tell=tell)

    async def _reply(self, message: Loaded | LoadFailed | Answer | Refused) -> None:
        try:
            self._channel.send(message)
            await self._channel.drain()
        except ConnectionError:
            return
        except FrameError:
            too_large = PayloadTooLargeError(
                "The answer is too large to send.", hint="Send fewer items in one request."
            )
            if isinstance(message, Answer):
                self._channel.send(Refused(message.id, Problem.of(too_large)))
        except (TypeError, ValueError, OverflowError) as error:
            # A task returned something that is no plain value.
            if isinstance(message, Answer):
                self._channel.send(Refused(message.id, problem_of(error, "encode")))


def _load_problem(error: BaseException) -> Problem:
    if isinstance(error, ServingError):
        return Problem.of(error)
    _log.error("worker.load_failed", exc_info=error)
    if isinstance(error, RegistryError):
        return Problem.of(LoadError(error.message, hint=error.hint))
    hint = str(getattr(error, "hint", ""))
    return Problem.of(LoadError(f"{type(error).__name__}: {error}", hint=hint))


async def _serve(arguments: argparse.Namespace) -> int:
    reader, writer = await asyncio.open_unix_connection(
        sock=socket.socket(fileno=arguments.socket_fd), limit=STREAM_LIMIT_BYTES
    )
    board = RunningBoard.attach(arguments.board_fd, arguments.lanes, arguments.width)
    decoder = msgspec.msgpack.Decoder[ToWorker](ToWorker)
    return await WorkerHost(Channel(reader, writer, decoder), board).run()


def main() -> None:
    """Run the worker with the descriptors that `process.py` passed."""
    parser = argparse.ArgumentParser(prog="serving.worker")
    parser.add_argument("--name", required=True)
    for number in ("--socket-fd", "--board-fd", "--lanes", "--width", "--parent"):
        parser.add_argument(number, type=int, required=True)
    arguments = parser.parse_args()
    die_with_parent(arguments.parent)
    # Ctrl-C is for the parent, which drains before it lets go of us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    configure_logs(worker=arguments.name, pid=os.getpid())
    try:
        import uvloop

        status = uvloop.run(_serve(arguments))
    except FrameError:
        _log.exception("worker.bad_frame")
        status = 1
    # Not sys.exit: an engine thread inside native code would keep the process
    # alive, and everything that matters has been sent.
    sys.stderr.flush()
    os._exit(status)
