"""The core of a worker that generates: outcomes, cancellation, deadlines, overload, stopping."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from serving.config import CoreLimits
from serving.errors import DeadlineExceededError, InvalidInputError, NotReadyError, OverloadedError
from serving.generation.protocol import Job
from serving.tasks.protocol import Array, Samples
from serving.worker.generation import GenerationCore
from serving.worker.messages import Done, Outcome, PredictRequest, Problem
from tests.serving.generation.counting import POISON, Best, Counting, job


class CountingTask:
    """An input `{"from": n, "tokens": m}` -> the m numbers after n."""

    name = "counting"
    samples = Samples([{"from": 0, "tokens": 2}])

    def prepare(self, item: object, parameters: Mapping[str, object]) -> Sequence[Job]:
        if not isinstance(item, dict):
            raise InvalidInputError("no object")
        return [job(item["from"], item["tokens"])[0] for _ in range(item.get("times", 1))]

    def answer(self, jobs: Sequence[Job]) -> object:
        found = [one.search.found for one in jobs if isinstance(one.search, Best)]
        return found[0] if len(found) == 1 else found

    def final(self, job: Job) -> dict[str, Any]:
        return {}


@dataclass
class Gated(Counting):
    """Waits at its first step until it is let on."""

    reached: threading.Event = field(default_factory=threading.Event)
    gate: threading.Event = field(default_factory=threading.Event)

    def step(self, sequences: Sequence[int], tokens: Sequence[int]) -> Array:
        self.reached.set()
        assert self.gate.wait(30)
        return super().step(sequences, tokens)


def asynchronous(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run a test in an event loop of its own."""

    @functools.wraps(test)
    def run() -> None:
        asyncio.run(test())

    return run


def ask(*items: object, timeout_s: float | None = None) -> PredictRequest:
    return PredictRequest(list(items), timeout_s=timeout_s)


def values(outcomes: list[Outcome]) -> list[Any]:
    return [one.value if isinstance(one, Done) else one.error_type for one in outcomes]


@asynchronous
async def test_outcomes_come_in_order_and_a_failure_is_one_of_them() -> None:
    async with GenerationCore(CountingTask(), Counting(), CoreLimits()) as core:
        outcomes = await core.predict(
            ask(
                {"from": 0, "tokens": 4},
                "wrong",
                {"from": POISON, "tokens": 2},
                {"from": 0, "tokens": 90},
                {"from": 20, "tokens": 1, "times": 2},
            )
        )
        assert core.accepted == 0
    assert values(outcomes) == [
        [1, 2, 3, 4], "invalid-input", "inference", "payload-too-large", [[21], [21]],
    ]  # fmt: skip
    first = outcomes[0]
    assert isinstance(first, Done)
    assert first.batch_rows[0] >= 1
    assert first.tokens == 1
    assert [one.grown for one in outcomes if isinstance(one, Done)] == [4, 2]
    assert first.inference_ms > 0
    assert first.queue_ms >= 0


@asynchronous
async def test_requests_grow_together() -> None:
    decoder = Counting()
    async with GenerationCore(CountingTask(), decoder, CoreLimits()) as core:
        requests = [ask({"from": start, "tokens": 6}) for start in (0, 1, 14)]
        answers = await asyncio.gather(*(core.predict(one) for one in requests))
    assert [values(one)[0] for one in answers] == [
        [1, 2, 3, 4, 5, 6], [2, 3, 4, 5, 6, 7], [15, 16, 17, 18, 19, 20],
    ]  # fmt: skip
    assert not decoder.opened


@asynchronous
async def test_what_nobody_waits_for_ends() -> None:
    decoder = Gated()
    async with GenerationCore(CountingTask(), decoder, CoreLimits()) as core:
        long = asyncio.create_task(core.predict(ask({"from": 0, "tokens": 9})))
        await asyncio.to_thread(decoder.reached.wait, 30)
        long.cancel()
        with pytest.raises(asyncio.CancelledError):
            await long
        late = asyncio.create_task(core.predict(ask({"from": 0, "tokens": 3}, timeout_s=0.01)))
        with pytest.raises(DeadlineExceededError):
            await late
        decoder.gate.set()
        assert values(await core.predict(ask({"from": 4, "tokens": 2}))) == [[5, 6]]
        assert core.accepted == 0
    assert not decoder.opened


@asynchronous
async def test_a_full_queue_refuses() -> None:
    decoder = Gated()
    async with GenerationCore(CountingTask(), decoder, CoreLimits(max_queue=2)) as core:
        first = asyncio.create_task(core.predict(ask(*[{"from": 0, "tokens": 3}] * 2)))
        await asyncio.to_thread(decoder.reached.wait, 30)
        with pytest.raises(OverloadedError):
            await core.predict(ask({"from": 0, "tokens": 1}))
        decoder.gate.set()
        assert values(await first) == [[1, 2, 3]] * 2


@asynchronous
async def test_stopping_fails_what_is_unfinished() -> None:
    decoder = Gated()
    core = GenerationCore(CountingTask(), decoder, CoreLimits())
    await core.start()
    running = asyncio.create_task(core.predict(ask({"from": 0, "tokens": 9})))
    await asyncio.to_thread(decoder.reached.wait, 30)
    stopping = asyncio.create_task(core.stop())
    await asyncio.sleep(0)
    decoder.gate.set()
    await stopping
    (outcome,) = await running
    assert isinstance(outcome, Problem)
    assert outcome.error_type == NotReadyError.error_type
    with pytest.raises(NotReadyError):
        await core.predict(ask({"from": 0, "tokens": 1}))
    await core.stop()
