"""The pipeline of a model that generates: prepare -> loop -> answer.

The event loop owns the bookkeeping of requests; one thread runs the generation loop, and takes new
jobs and cancellations between its turns. Runs wherever a `Predictor` is wanted.
"""

from __future__ import annotations

import asyncio
import math
import queue
import threading
import time
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from serving.config import CoreLimits
from serving.errors import (
    DeadlineExceededError,
    InvalidInputError,
    NotReadyError,
    OverloadedError,
    PayloadTooLargeError,
)
from serving.generation.loop import Ended, GenerationLoop
from serving.generation.protocol import Decoder, GenerationTask, Job, Piece
from serving.worker.batch import problem_of
from serving.worker.core import Board, NoBoard
from serving.worker.messages import Done, Outcome, PredictRequest, Problem, Tell

_LANE = 0


@dataclass(eq=False, slots=True)
class _Item:
    """One input: its jobs grow by themselves, and its answer is made when all are complete."""

    request_id: int
    jobs: Sequence[Job]
    outcome: asyncio.Future[Outcome]
    deadline: float
    prepare_ms: float
    waiting_since: float
    missing: int
    tell: Tell | None = None
    began: float = 0.0
    grown: int = 0
    rows: list[int] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return sum(len(job.prompt.ids) + len(job.prompt.source or ()) for job in self.jobs)


class GenerationCore:
    """Answers requests for one loaded generation task and decoder; a `Predictor`.

    Use as an async context manager, or `start` and `stop` it. All calls must come from one event
    loop.

    Args:
        task: turns inputs into jobs, and finished jobs into answers.
        decoder: grows sequences. Shut down with the core.
        limits: bounds and threads.
        board: told which requests are being worked on.
    """

    def __init__(
        self,
        task: GenerationTask,
        decoder: Decoder,
        limits: CoreLimits,
        board: Board | None = None,
    ) -> None:
        self._task = task
        self._decoder = decoder
        self._limits = limits
        self._board: Board = board or NoBoard()
        self._loop = GenerationLoop(decoder, max_jobs=limits.max_batch_rows, tell=self._note)
        self._inbox: queue.SimpleQueue[tuple[_Item, bool] | None] = queue.SimpleQueue()
        self._accepted = 0
        self._stopping = False
        self._events: asyncio.AbstractEventLoop | None = None
        self._preparers: ThreadPoolExecutor | None = None
        self._thread: threading.Thread | None = None

    async def __aenter__(self) -> GenerationCore:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def accepted(self) -> int:
        """Inputs accepted and not yet answered."""
        return self._accepted

    async def start(self) -> None:
        """Make the threads; the core takes requests from now on."""
        self._events = asyncio.get_running_loop()
        self._preparers = ThreadPoolExecutor(self._limits.tokenize_threads, "prepare")
        self._thread = threading.Thread(target=self._run, name="generate", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Refuse new requests, fail what is unfinished, wait for what runs."""
        if self._stopping:
            return
        self._stopping = True
        self._inbox.put(None)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        if self._preparers is not None:
            await asyncio.to_thread(self._preparers.shutdown, wait=True)
        self._decoder.shutdown()

    async def predict(
        self, request: PredictRequest, *, request_id: int = 0, tell: Tell | None = None
    ) -> list[Outcome]:
        """Return one outcome per item, in order; see `messages.Predictor`.

        With `tell`, there is one item, its tokens are told as they come, and the outcome's value
        is the last event (see `messages.Predict`).
        """
        if self._events is None or self._stopping:
            raise NotReadyError("The worker is not running.", retry_after_s=1)
        count = len(request.items)
        self._admit(count)
        deadline = math.inf if request.timeout_s is None else time.monotonic() + request.timeout_s
        begun: list[_Item] = []
        try:
            async with asyncio.timeout(request.timeout_s):
                return await self._answer(request, request_id, deadline, begun, tell)
        except TimeoutError:
            raise DeadlineExceededError(
                "The deadline passed before the answer was ready.",
                hint="Ask for fewer tokens or texts, or allow more time with --request-timeout.",
            ) from None
        finally:
            self._accepted -= count
            for item in begun:
                if not item.outcome.done() or item.outcome.cancelled():
                    self._inbox.put((item, False))

    def _admit(self, count: int) -> None:
        if self._accepted + count > self._limits.max_queue:
            raise OverloadedError(
                f"The queue holds {self._accepted} of at most {self._limits.max_queue} items.",
                hint="Send again after Retry-After, or start the server with a longer --max-queue.",
                retry_after_s=1.0,
            )
        self._accepted += count

    async def _answer(
        self,
        request: PredictRequest,
        request_id: int,
        deadline: float,
        begun: list[_Item],
        tell: Tell | None,
    ) -> list[Outcome]:
        waiting: list[asyncio.Future[Outcome] | Problem] = []
        for item in request.items:
            made = await self._prepare(item, request.parameters, request_id, deadline)
            if isinstance(made, Problem):
                waiting.append(made)
                continue
            if tell is not None and len(made.jobs) > 1:
                return [Problem.of(InvalidInputError("A stream tells one answer, not several."))]
            made.tell = tell
            begun.append(made)
            waiting.append(made.outcome)
            self._inbox.put((made, True))
        return [one if isinstance(one, Problem) else await one for one in waiting]

    async def _prepare(
        self, item: Any, parameters: dict[str, Any], request_id: int, deadline: float
    ) -> _Item | Problem:
        events = asyncio.get_running_loop()
        if self._stopping:
            raise NotReadyError("The worker is stopping.", retry_after_s=1)
        started = time.perf_counter()
        jobs = await events.run_in_executor(self._preparers, self._jobs, item, parameters)
        if isinstance(jobs, Problem):
            return jobs
        now = time.perf_counter()
        outcome: asyncio.Future[Outcome] = events.create_future()
        return _Item(
            request_id, jobs, outcome, deadline, (now - started) * 1e3, now, missing=len(jobs)
        )

    def _jobs(self, item: Any, parameters: dict[str, Any]) -> Sequence[Job] | Problem:
        """Turn an input into jobs that the decoder can hold, in a thread."""
        try:
            jobs = self._task.prepare(item, parameters)
            if not all(self._loop.fits(job) for job in jobs):
                raise PayloadTooLargeError(
                    "The answer asked for does not fit into the model's cache.",
                    hint="Ask for fewer tokens or beams, send a shorter text, or start the server "
                    "with a larger --cache-memory.",
                )
        # A tokenizer's native panic is a BaseException and no Exception.
        except BaseException as error:
            return problem_of(error, "prepare")
        return jobs

    def _run(self) -> None:
        """Turn the loop until the core stops; sleep while there is nothing to do."""
        items: set[_Item] = set()
        while self._receive(items):
            self._drop_late(items)
            self._loop.admit()
            growing = self._growing()
            for item in growing:
                item.began = item.began or time.perf_counter()
            self._board.enter(_LANE, sorted({item.request_id for item in growing}))
            try:
                ended = self._loop.turn()
            # Native code reaches us as panics that are no Exception. Whose fault it is, is unknown.
            except BaseException as error:
                ended = [Ended(item, error, 0) for item in growing]
            self._board.leave(_LANE)
            for one in ended:
                self._end(one, items)
            for item in growing:
                self._say(item, items)
        stopped = Problem.of(NotReadyError("The worker is stopping.", retry_after_s=1))
        for item in items:
            self._loop.drop(item)
            self._settle(item, stopped)

    def _growing(self) -> list[_Item]:
        return [key for key in self._loop.growing if isinstance(key, _Item)]

    def _receive(self, items: set[_Item]) -> bool:
        """Take what came in, waiting for it if there is nothing to do; False when it is over."""
        while True:
            try:
                came = self._inbox.get(block=self._loop.idle)
            except queue.Empty:
                return True
            if came is None:
                return False
            item, wanted = came
            if not wanted:
                items.discard(item)
                self._loop.drop(item)
                continue
            items.add(item)
            for job in item.jobs:
                self._loop.add(item, job)

    def _drop_late(self, items: set[_Item]) -> None:
        now = time.monotonic()
        for item in [one for one in items if one.deadline <= now]:
            # Its caller has been told by the clock already.
            items.discard(item)
            self._loop.drop(item)

    def _end(self, ended: Ended, items: set[_Item]) -> None:
        item = ended.key
        if not isinstance(item, _Item) or item not in items:
            return
        if ended.error is not None:
            items.discard(item)
            self._loop.drop(item)
            self._settle(item, problem_of(ended.error, "generate"))
            return
        item.rows.append(ended.most_rows)
        item.grown += ended.tokens
        item.missing -= 1
        if not item.missing:
            items.discard(item)
            self._settle(item, self._done(item))

    def _done(self, item: _Item) -> Outcome:
        started = time.perf_counter()
        try:
            value = self._last_event(item) if item.tell else self._task.answer(item.jobs)
        except BaseException as error:
            return problem_of(error, "answer")
        ended = time.perf_counter()
        return Done(
            value=value,
            tokens=item.tokens,
            batch_rows=item.rows,
            tokenize_ms=item.prepare_ms,
            queue_ms=(item.began - item.waiting_since) * 1e3,
            inference_ms=(started - item.began) * 1e3,
            postprocess_ms=(ended - started) * 1e3,
            grown=item.grown,
        )

    def _note(self, key: Hashable, pieces: Sequence[Piece]) -> None:
        """Keep what a stream may be told until it is known whether the answer is complete."""
        if isinstance(key, _Item) and key.tell is not None:
            key.pieces.extend(pieces)

    def _say(self, item: _Item, items: set[_Item]) -> None:
        """Tell a stream its new tokens; the last ones go with the outcome."""
        tell, pieces = item.tell, item.pieces
        if tell is None or not pieces or item not in items:
            return
        item.pieces = []
        if self._events is not None and not self._events.is_closed():
            self._events.call_soon_threadsafe(tell, pieces)

    def _last_event(self, item: _Item) -> dict[str, Any]:
        last = [[one.token, one.text, one.logprob, one.special] for one in item.pieces]
        return {**self._task.final(item.jobs[0]), "last": last}

    def _settle(self, item: _Item, outcome: Outcome) -> None:
        def tell() -> None:
            if not item.outcome.done():
                item.outcome.set_result(outcome)

        if self._events is not None and not self._events.is_closed():
            self._events.call_soon_threadsafe(tell)
