"""The pipeline of one model version: tokenise -> queue -> batch -> engine -> postprocess.

Event-driven and work-conserving: a batch is formed at the moment that an engine slot is
free and a row waits, never after a fixed wait, never by polling. The event loop owns all
bookkeeping; threads only tokenise and run. Runs inside a worker process, and in-process
wherever a `Predictor` is wanted.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from serving.config import CoreLimits
from serving.engines.protocol import Engine
from serving.errors import (
    DeadlineExceededError,
    InferenceError,
    NotReadyError,
    OverloadedError,
    PayloadTooLargeError,
)
from serving.tasks.protocol import Row, Task
from serving.worker.batch import problem_of, run_batch
from serving.worker.items import Item
from serving.worker.messages import Outcome, PredictRequest, Problem
from serving.worker.schedule import BatchPolicy, LengthQueue, Waiting, chosen_step

TOKENIZE_CHUNK = 16
"""Items tokenised in one go: the first rows of a long list run while the rest is tokenised."""


class Board(Protocol):
    """Where the core says what it is working on (see `board.RunningBoard`)."""

    def enter(self, lane: int, ids: Sequence[int]) -> None:
        """Say that work on these requests begins in `lane`."""

    def leave(self, lane: int) -> None:
        """Say that work in `lane` has ended."""


class NoBoard:
    """The board of a core that shares its process with its callers: nobody would read it."""

    def enter(self, lane: int, ids: Sequence[int]) -> None:
        """Do nothing."""

    def leave(self, lane: int) -> None:
        """Do nothing."""


HELD_BYTES = 256 * 2**20
"""Arrays of rows that wait or run; above that, nothing more is turned into rows.

A small file may decode to megabytes, and a list has hundreds of them: files wait as they came.
"""


@dataclass(eq=False, slots=True)
class _Request:
    """One call of `predict` on its way: outcomes fill in, the last one wakes the caller."""

    id: int
    parameters: dict[str, Any]
    deadline: float
    finished: asyncio.Future[None]
    outcomes: list[Outcome | None]
    remaining: int
    accepted: int
    queued: set[Waiting[_Place]] = field(default_factory=set)
    held_bytes: dict[int, int] = field(default_factory=dict)

    def settle(self, index: int, outcome: Outcome) -> None:
        self.outcomes[index] = outcome
        self.remaining -= 1
        # A caller that hung up has a cancelled future; settling it would raise
        # and strand everyone behind it.
        if self.remaining == 0 and not self.finished.done():
            self.finished.set_result(None)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where what comes of a row belongs."""

    request: _Request
    item: Item
    number: int

    @property
    def row(self) -> Row:
        return self.item.rows[self.number]


class WorkerCore:
    """Answers predictions for one loaded task and engine; a `Predictor`.

    Use as an async context manager, or `start` and `stop` it. All calls must come from
    one event loop.

    Args:
        task, engine: what turns items into rows and rows into outputs. Not closed here.
        limits: slots, budgets and bounds.
        board: told which requests are being worked on.
    """

    def __init__(
        self, task: Task, engine: Engine, limits: CoreLimits, board: Board | None = None
    ) -> None:
        self._task = task
        self._engine = engine
        self._limits = limits
        self._board: Board = board or NoBoard()
        self._queue: LengthQueue[_Place] = LengthQueue(
            BatchPolicy(
                max_batch_tokens=limits.max_batch_tokens,
                max_batch_rows=limits.max_batch_rows,
                length_step=limits.length_step or chosen_step(engine.pads_freely),
                age_cap_s=limits.age_cap_s,
            )
        )
        self._free_slots = list(range(limits.slots))
        self._free_lanes = list(range(limits.slots, limits.slots + limits.tokenize_threads))
        self._accepted = 0
        self._row_s = 0.0
        self._held_bytes = 0
        self._room = asyncio.Event()
        self._stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._engines: ThreadPoolExecutor | None = None
        self._tokenizers: ThreadPoolExecutor | None = None

    async def __aenter__(self) -> WorkerCore:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def accepted(self) -> int:
        """Rows accepted and not yet answered; an input counts as one before it is tokenised."""
        return self._accepted

    async def start(self) -> None:
        """Make the threads; the core takes requests from now on."""
        self._loop = asyncio.get_running_loop()
        self._room.set()
        self._engines = ThreadPoolExecutor(self._limits.slots, "engine")
        self._tokenizers = ThreadPoolExecutor(self._limits.tokenize_threads, "tokenize")

    async def stop(self) -> None:
        """Refuse new requests, fail what still waits, wait for what runs."""
        self._stopping = True
        self._room.set()
        stopped = Problem.of(NotReadyError("The worker is stopping.", retry_after_s=1))
        while len(self._queue):
            taken = self._queue.take(-math.inf, free_slots=1)
            for waiting in taken.rows:
                self._settle(waiting, stopped)
        for pool in (self._tokenizers, self._engines):
            if pool is not None:
                await asyncio.to_thread(pool.shutdown, wait=True)

    async def predict(self, request: PredictRequest, *, request_id: int = 0) -> list[Outcome]:
        """Return one outcome per item, in order; see `messages.Predictor`."""
        if self._loop is None or self._stopping:
            raise NotReadyError("The worker is not running.", retry_after_s=1)
        items = len(request.items)
        self._admit(items)
        deadline = math.inf if request.timeout_s is None else time.monotonic() + request.timeout_s
        job = _Request(
            id=request_id,
            parameters=request.parameters,
            deadline=deadline,
            finished=self._loop.create_future(),
            outcomes=[None] * items,
            remaining=items,
            accepted=items,
        )
        try:
            async with asyncio.timeout(request.timeout_s):
                return await self._answer(job, request.items)
        except TimeoutError:
            raise _too_late() from None
        finally:
            self._accepted -= job.accepted
            for waiting in job.queued:
                self._queue.remove(waiting)
            for index in [*job.held_bytes]:
                self._let_go(job, index)

    def _admit(self, items: int) -> None:
        if self._accepted + items > self._limits.max_queue:
            wait_s = max(1.0, math.ceil(self._accepted * self._row_s / self._limits.slots))
            raise OverloadedError(
                f"The queue holds {self._accepted} of at most {self._limits.max_queue} items.",
                hint="Send again after Retry-After, or start the server with a longer --max-queue.",
                retry_after_s=min(wait_s, 60.0),
            )
        self._accepted += items

    async def _answer(self, job: _Request, items: Sequence[Any]) -> list[Outcome]:
        for start in range(0, len(items), TOKENIZE_CHUNK):
            await self._tokenize(job, start, items[start : start + TOKENIZE_CHUNK])
        if items:
            await job.finished
        return [outcome for outcome in job.outcomes if outcome is not None]

    async def _tokenize(self, job: _Request, start: int, items: Sequence[Any]) -> None:
        await self._room.wait()
        loop = self._loop
        if loop is None or self._stopping:
            raise NotReadyError("The worker is stopping.", retry_after_s=1)
        made = await loop.run_in_executor(self._tokenizers, self._preprocess, job, start, items)
        for index, item in enumerate(made, start=start):
            if isinstance(item, Problem):
                job.settle(index, item)
            else:
                self._enqueue(job, item)
        self._pump()

    def _enqueue(self, job: _Request, item: Item) -> None:
        now = time.monotonic()
        # The rows of a long text count like as many inputs, from now on.
        job.accepted += len(item.rows) - 1
        self._accepted += len(item.rows) - 1
        size_bytes = sum(array.nbytes for row in item.rows for array in row.arrays.values())
        job.held_bytes[item.index] = size_bytes
        self._held_bytes += size_bytes
        if self._held_bytes >= HELD_BYTES:
            self._room.clear()
        for number, row in enumerate(item.rows):
            place = _Place(job, item, number)
            waiting = Waiting(
                place, row.length, enqueued_at=now, deadline=job.deadline, kind=row.kind
            )
            job.queued.add(waiting)
            self._queue.add(waiting)

    def _preprocess(self, job: _Request, start: int, items: Sequence[Any]) -> list[Item | Problem]:
        """Turn inputs into items, in a tokenize thread; one that fails, fails alone."""
        lane = self._free_lanes.pop()
        self._board.enter(lane, [job.id])
        try:
            return [
                self._item(index, item, job.parameters)
                for index, item in enumerate(items, start=start)
            ]
        finally:
            self._board.leave(lane)
            self._free_lanes.append(lane)

    def _item(self, index: int, item: Any, parameters: dict[str, Any]) -> Item | Problem:
        started = time.perf_counter()
        try:
            rows = self._task.preprocess(item, parameters)
            self._check_rows(len(rows))
        # A tokenizer's native panic is a BaseException and no Exception.
        except BaseException as error:
            return problem_of(error, "preprocess")
        return Item(index, rows, parameters, (time.perf_counter() - started) * 1e3)

    def _check_rows(self, rows: int) -> None:
        if rows < 1:
            raise InferenceError("The task made nothing of this input.")
        if rows > self._limits.max_queue:
            raise PayloadTooLargeError(
                f"The input makes {rows} rows, at most {self._limits.max_queue} are accepted.",
                hint="Send a shorter text or fewer labels, "
                "or start the server with a longer --max-queue.",
            )

    def _pump(self) -> None:
        """Start batches while a slot is free and a row waits."""
        while self._free_slots and len(self._queue) and not self._stopping:
            now = time.monotonic()
            taken = self._queue.take(now, free_slots=len(self._free_slots))
            for waiting in taken.expired:
                self._settle(waiting, Problem.of(_too_late()))
            if taken.rows:
                self._begin(taken.rows, now)

    def _begin(self, rows: list[Waiting[_Place]], now: float) -> None:
        if self._engines is None:
            return
        slot = self._free_slots.pop()
        for waiting in rows:
            waiting.payload.request.queued.discard(waiting)
        self._board.enter(slot, [waiting.payload.request.id for waiting in rows])
        self._engines.submit(self._run, slot, rows, now)

    def _run(self, slot: int, rows: list[Waiting[_Place]], began_at: float) -> None:
        """Run a batch in an engine thread and hand the outcomes to the event loop."""
        started = time.perf_counter()
        places = [waiting.payload for waiting in rows]
        results = run_batch(self._task, self._engine, [place.row for place in places])
        outcomes = [
            (place, place.item.outcome(self._task))
            for waiting, place, result in zip(rows, places, results, strict=True)
            if place.item.deliver(place.number, result, (began_at - waiting.enqueued_at) * 1e3)
        ]
        row_s = (time.perf_counter() - started) / len(rows)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._finish, slot, outcomes, row_s)

    def _finish(self, slot: int, outcomes: list[tuple[_Place, Outcome]], row_s: float) -> None:
        self._board.leave(slot)
        self._free_slots.append(slot)
        self._row_s = row_s if self._row_s == 0.0 else 0.9 * self._row_s + 0.1 * row_s
        # The next batch starts before this one's answers are encoded: the engine
        # never waits for bookkeeping.
        self._pump()
        for place, outcome in outcomes:
            self._tell(place, outcome)

    def _tell(self, place: _Place, outcome: Outcome) -> None:
        """Settle an input; of one that failed, drop the rows that still wait."""
        if isinstance(outcome, Problem) and len(place.item.rows) > 1:
            left = [one for one in place.request.queued if one.payload.item is place.item]
            for waiting in left:
                place.request.queued.discard(waiting)
                self._queue.remove(waiting)
        self._let_go(place.request, place.item.index)
        place.request.settle(place.item.index, outcome)

    def _let_go(self, job: _Request, index: int) -> None:
        """Forget the arrays of an input that was answered, or that nobody waits for."""
        self._held_bytes -= job.held_bytes.pop(index, 0)
        if self._held_bytes < HELD_BYTES:
            self._room.set()

    def _settle(self, waiting: Waiting[_Place], problem: Problem) -> None:
        place = waiting.payload
        place.request.queued.discard(waiting)
        if place.item.deliver(place.number, problem):
            self._tell(place, problem)


def _too_late() -> DeadlineExceededError:
    return DeadlineExceededError(
        "The deadline passed before the answer was ready.",
        hint="Send fewer or shorter texts, or allow more time with --request-timeout.",
    )
