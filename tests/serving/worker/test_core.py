from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.config import CoreLimits
from serving.errors import DeadlineExceededError, NotReadyError, OverloadedError
from serving.worker.core import WorkerCore
from serving.worker.messages import Done, Outcome, PredictRequest, Problem
from serving.worker.warmup import warm
from tests.serving.pipeline import (
    BAR,
    PANIC,
    POISON,
    UNPOSTABLE,
    CharacterTask,
    SumEngine,
    parts,
    reference,
)

BAD = {POISON: "inference", UNPOSTABLE: "inference", PANIC: "inference"}


def with_core(
    body: Callable[[WorkerCore, SumEngine], Awaitable[Any]],
    *,
    held: bool = False,
    **limits: Any,
) -> Any:
    async def run() -> Any:
        engine = SumEngine(held=held)
        async with WorkerCore(CharacterTask(), engine, CoreLimits(**limits)) as core:
            try:
                return await body(core, engine)
            finally:
                engine.release()

    return asyncio.run(run())


async def began(engine: SumEngine) -> None:
    assert await asyncio.to_thread(engine.began.acquire, timeout=30)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - the code under test sets no event
            await asyncio.sleep(0.001)


def check(text: str, outcome: Outcome) -> None:
    bad = next((kind for mark, kind in BAD.items() if mark in text), None)
    if not parts(text):
        bad = "invalid-input"
    if bad is None:
        assert isinstance(outcome, Done)
        assert outcome.value == reference(text)
    elif isinstance(outcome, Problem):
        assert outcome.error_type == bad
    else:
        pytest.fail(f"{text!r} was answered")


texts = st.text(
    st.sampled_from("abcxyz" + BAR + BAR + POISON + UNPOSTABLE + PANIC), min_size=1, max_size=8
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(texts, min_size=1, max_size=20), min_size=1, max_size=8),
    st.integers(1, 3),
    st.integers(1, 40),
    st.integers(1, 8),
    st.integers(1, 4),
    st.sampled_from([0.0, 10.0]),
)
def test_an_answer_depends_on_its_own_item_alone(
    requests: list[list[str]], slots: int, tokens: int, rows: int, step: int, age_cap_s: float
) -> None:
    """Whatever shares a batch or fails in it: one answer each, in order, the right one."""

    async def body(core: WorkerCore, engine: SumEngine) -> None:
        calls = [core.predict(PredictRequest(list(items))) for items in requests]
        for items, outcomes in zip(requests, await asyncio.gather(*calls), strict=True):
            assert len(outcomes) == len(items)
            for text, outcome in zip(items, outcomes, strict=True):
                check(text, outcome)
        assert core.accepted == 0

    with_core(
        body,
        slots=slots,
        max_batch_tokens=tokens,
        max_batch_rows=rows,
        length_step=step,
        age_cap_s=age_cap_s,
    )


def test_waiting_rows_of_equal_length_share_a_batch_and_others_do_not() -> None:
    async def body(core: WorkerCore, engine: SumEngine) -> None:
        first = asyncio.ensure_future(core.predict(PredictRequest(["start"])))
        await began(engine)
        others = [
            asyncio.ensure_future(core.predict(PredictRequest([text])))
            for text in ("aaa", "bb", "ccc", "dd", "eee")
        ]
        await until(lambda: len(core._queue) == 5)
        engine.release()
        await asyncio.gather(first, *others)
        assert engine.batches == [(1, 5), (3, 3), (2, 2)]

    with_core(body, held=True)


def test_no_slot_idles_while_a_row_waits() -> None:
    async def body(core: WorkerCore, engine: SumEngine) -> None:
        call = asyncio.ensure_future(core.predict(PredictRequest(["same"] * 8)))
        await began(engine)
        await began(engine)
        assert engine.running == 2
        engine.release()
        await call
        assert [rows for rows, _ in engine.batches] == [4, 4]

    with_core(body, held=True, slots=2)


def test_stages_and_batch_size_are_told() -> None:
    async def body(core: WorkerCore, engine: SumEngine) -> None:
        outcomes = await core.predict(PredictRequest(["abc", "def"], {"add": 1}))
        assert [o.value for o in outcomes if isinstance(o, Done)] == [
            reference("abc") + 1,
            reference("def") + 1,
        ]
        for outcome in outcomes:
            assert isinstance(outcome, Done)
            assert outcome.tokens == 3
            assert outcome.batch_rows == [2]
            stages = (outcome.tokenize_ms, outcome.queue_ms, outcome.inference_ms)
            assert all(spent >= 0 for spent in (*stages, outcome.postprocess_ms))

    with_core(body)


def test_a_full_queue_refuses_and_enqueues_nothing() -> None:
    async def body(core: WorkerCore, engine: SumEngine) -> None:
        call = asyncio.ensure_future(core.predict(PredictRequest(["a", "b", "c"])))
        await began(engine)
        with pytest.raises(OverloadedError) as caught:
            await core.predict(PredictRequest(["d", "e"]))
        assert caught.value.retry_after_s is not None
        assert core.accepted == 3
        last = asyncio.ensure_future(core.predict(PredictRequest(["f"])))
        engine.release()
        assert len(await call) == 3
        assert len(await last) == 1

    with_core(body, held=True, max_queue=4)


def test_a_hung_up_request_never_runs() -> None:
    async def body(core: WorkerCore, engine: SumEngine) -> None:
        first = asyncio.ensure_future(core.predict(PredictRequest(["first"])))
        await began(engine)
        gone = asyncio.ensure_future(core.predict(PredictRequest(["gone"] * 3)))
        stays = asyncio.ensure_future(core.predict(PredictRequest(["stay"])))
        await until(lambda: len(core._queue) == 4)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        assert len(core._queue) == 1
        assert core.accepted == 2
        engine.release()
        await asyncio.gather(first, stays)
        assert engine.batches == [(1, 5), (1, 4)]

    with_core(body, held=True)


def test_hanging_up_inside_a_batch_leaves_the_batch_mates_alone() -> None:
    async def body(core: WorkerCore, engine: SumEngine) -> None:
        first = asyncio.ensure_future(core.predict(PredictRequest(["wait"])))
        await began(engine)
        gone = asyncio.ensure_future(core.predict(PredictRequest(["aa"])))
        stays = asyncio.ensure_future(core.predict(PredictRequest(["bb"])))
        await until(lambda: len(core._queue) == 2)
        engine.release()
        await first
        gone.cancel()
        check("bb", (await stays)[0])
        assert core.accepted == 0

    with_core(body, held=True)


def test_a_deadline_frees_the_caller_and_the_queue() -> None:
    async def body(core: WorkerCore, engine: SumEngine) -> None:
        first = asyncio.ensure_future(core.predict(PredictRequest(["first"])))
        await began(engine)
        with pytest.raises(DeadlineExceededError):
            await core.predict(PredictRequest(["late"], {}, 0.01))
        assert len(core._queue) == 0
        engine.release()
        await first
        assert engine.batches == [(1, 5)]

    with_core(body, held=True)


def test_one_poisoned_row_of_many_is_found_by_halving() -> None:
    async def body(core: WorkerCore, engine: SumEngine) -> None:
        first = asyncio.ensure_future(core.predict(PredictRequest(["x"])))
        await began(engine)
        items = [f"t{index}" for index in range(8)]
        items[5] = f"t{POISON}"
        call = asyncio.ensure_future(core.predict(PredictRequest(items)))
        await until(lambda: len(core._queue) == 8)
        engine.release()
        await first
        for text, outcome in zip(items, await call, strict=True):
            check(text, outcome)
        assert [rows for rows, _ in engine.batches[1:]] == [8, 4, 4, 2, 1, 1, 2]

    with_core(body, held=True)


def test_rows_of_one_input_are_batched_by_themselves_and_put_together() -> None:
    async def body(core: WorkerCore, engine: SumEngine) -> None:
        text = "aaa|bb|ccc|d"
        (outcome,) = await core.predict(PredictRequest([text]))
        assert isinstance(outcome, Done)
        assert outcome.value == reference(text)
        assert outcome.tokens == 9
        assert outcome.batch_rows == [2, 1, 2, 1]
        assert sorted(engine.batches) == [(1, 1), (1, 2), (2, 3)]

    with_core(body)


def test_rows_count_as_inputs_while_they_wait() -> None:
    async def body(core: WorkerCore, engine: SumEngine) -> None:
        call = asyncio.ensure_future(core.predict(PredictRequest(["a|bb|ccc"])))
        await began(engine)
        assert core.accepted == 3
        with pytest.raises(OverloadedError):
            await core.predict(PredictRequest(["d", "e"]))
        engine.release()
        await call
        assert core.accepted == 0

    with_core(body, held=True, max_queue=4)


def test_an_input_of_more_rows_than_the_queue_holds_is_refused() -> None:
    async def body(core: WorkerCore, engine: SumEngine) -> None:
        long, short = await core.predict(PredictRequest(["a|b|c|d|e", "a|b"]))
        assert isinstance(long, Problem)
        assert long.error_type == "payload-too-large"
        check("a|b", short)

    with_core(body, max_queue=4)


def test_a_failed_row_fails_its_input_and_spares_the_rest_of_it() -> None:
    async def body(core: WorkerCore, engine: SumEngine) -> None:
        items = [f"{POISON}|bb|ccc", "dddd|eeeee"]
        failed, done = await core.predict(PredictRequest(items))
        check(items[0], failed)
        check(items[1], done)
        assert (1, 1) in engine.batches
        # The batch after the failed one had begun by then; nothing else of the input runs.
        assert (1, 3) not in engine.batches
        assert core.accepted == 0

    with_core(body, age_cap_s=0.0)


def test_a_worker_is_warmed_with_its_tasks_samples() -> None:
    async def body(core: WorkerCore, engine: SumEngine) -> None:
        await warm(core, CharacterTask().samples)
        assert sorted(engine.batches) == [(1, 2), (1, 4), (2, 6)]

    with_core(body)


def test_stopping_answers_what_waits() -> None:
    async def run() -> None:
        engine = SumEngine(held=True)
        core = WorkerCore(CharacterTask(), engine, CoreLimits())
        with pytest.raises(NotReadyError):
            await core.predict(PredictRequest(["too early"]))
        await core.start()
        inside = asyncio.ensure_future(core.predict(PredictRequest(["in"])))
        await began(engine)
        waits = asyncio.ensure_future(core.predict(PredictRequest(["waits"])))
        await until(lambda: len(core._queue) == 1)
        stopping = asyncio.ensure_future(core.stop())
        (outcome,) = await waits
        assert isinstance(outcome, Problem)
        assert outcome.error_type == "not-ready"
        engine.release()
        await stopping
        check("in", (await inside)[0])
        with pytest.raises(NotReadyError):
            await core.predict(PredictRequest(["too late"]))

    asyncio.run(run())


def test_no_items_need_no_work() -> None:
    async def body(core: WorkerCore, engine: SumEngine) -> None:
        assert await core.predict(PredictRequest([])) == []

    with_core(body)


def test_the_board_shows_what_runs() -> None:
    from serving.worker.board import RunningBoard

    async def run() -> None:
        board, fd = RunningBoard.create(2, 16)
        import os

        seen = RunningBoard.attach(fd, 2, 16)
        os.close(fd)
        engine = SumEngine(held=True)
        async with WorkerCore(CharacterTask(), engine, CoreLimits(), board) as core:
            inside = asyncio.ensure_future(core.predict(PredictRequest(["a"]), request_id=7))
            await began(engine)
            waits = asyncio.ensure_future(core.predict(PredictRequest(["b"]), request_id=8))
            await until(lambda: len(core._queue) == 1)
            assert seen.read() == {7}
            engine.release()
            await asyncio.gather(inside, waits)
            assert seen.read() == frozenset()
        board.close()
        seen.close()

    asyncio.run(run())


def test_engine_threads_are_gone_after_the_end() -> None:
    async def body(core: WorkerCore, engine: SumEngine) -> None:
        await core.predict(PredictRequest(["a"]))

    with_core(body, slots=3)
    assert not [t.name for t in threading.enumerate() if t.name.startswith(("engine", "tokenize"))]


@pytest.mark.parametrize(("pads_freely", "batches"), [(False, 2), (True, 1)])
def test_unlike_lengths_share_a_batch_where_padding_is_free(
    pads_freely: bool, batches: int
) -> None:
    async def run() -> list[tuple[int, int]]:
        engine = SumEngine(pads_freely=pads_freely)
        async with WorkerCore(CharacterTask(), engine, CoreLimits()) as core:
            await core.predict(PredictRequest(["abc", "abcd"], {}))
        return engine.batches

    assert len(asyncio.run(run())) == batches


def test_inputs_wait_as_they_came_while_much_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.worker.core.HELD_BYTES", 100)

    async def body(core: WorkerCore, engine: SumEngine) -> None:
        first = asyncio.ensure_future(core.predict(PredictRequest(["a long one"])))
        await began(engine)
        gone = asyncio.ensure_future(core.predict(PredictRequest(["gone"])))
        more = asyncio.ensure_future(core.predict(PredictRequest(["more"] * 40)))
        await until(lambda: core.accepted == 42)
        assert len(core._queue) == 0
        gone.cancel()
        engine.release()
        check("a long one", *await first)
        for outcome in await more:
            check("more", outcome)
        assert core._held_bytes == 0

    with_core(body, held=True)
