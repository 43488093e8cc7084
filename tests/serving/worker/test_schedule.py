from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.worker.schedule import BatchPolicy, LengthQueue, Waiting


def queue_of(lengths: list[int], policy: BatchPolicy, *, at: float = 0.0) -> LengthQueue[int]:
    queue: LengthQueue[int] = LengthQueue(policy)
    for index, length in enumerate(lengths):
        queue.add(Waiting(index, length, enqueued_at=at))
    return queue


def drain(queue: LengthQueue[int], *, now: float = 0.0, free_slots: int = 1) -> list[list[int]]:
    batches = []
    while len(queue):
        taken = queue.take(now, free_slots=free_slots)
        batches.append([waiting.payload for waiting in taken.rows])
    return batches


lengths_lists = st.lists(st.integers(1, 40), max_size=60)
policies = st.builds(
    BatchPolicy,
    max_batch_tokens=st.integers(1, 200),
    max_batch_rows=st.integers(1, 8),
    length_step=st.integers(1, 8),
    age_cap_s=st.sampled_from([0.0, 1.0]),
)


@given(lengths_lists, policies, st.integers(1, 4))
def test_every_row_leaves_once_within_the_budgets(
    lengths: list[int], policy: BatchPolicy, free_slots: int
) -> None:
    batches = drain(queue_of(lengths, policy), free_slots=free_slots)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        padded = max(lengths[row] for row in batch)
        assert len(batch) <= policy.max_batch_rows
        assert len(batch) == 1 or padded * len(batch) <= policy.max_batch_tokens
        steps = {-(-lengths[row] // policy.length_step) for row in batch}
        assert len(steps) == 1
        assert batch == sorted(batch)


@given(lengths_lists)
def test_the_oldest_row_always_leads_without_an_age_cap(lengths: list[int]) -> None:
    queue = queue_of(lengths, BatchPolicy())
    left = set(range(len(lengths)))
    while len(queue):
        rows = [waiting.payload for waiting in queue.take(0.0).rows]
        assert rows[0] == min(left)
        left -= set(rows)


def test_the_fullest_group_leads_until_the_oldest_row_is_too_old() -> None:
    policy = BatchPolicy(max_batch_tokens=100, max_batch_rows=8, age_cap_s=1.0)
    queue = queue_of([5, 10, 10, 10], policy)
    assert [waiting.payload for waiting in queue.take(0.5).rows] == [1, 2, 3]
    queue.add(Waiting(4, 10, enqueued_at=0.9))
    assert [waiting.payload for waiting in queue.take(1.0).rows] == [0]


def test_free_slots_share_what_waits() -> None:
    queue = queue_of([7] * 8, BatchPolicy())
    assert len(queue.take(0.0, free_slots=2).rows) == 4
    assert len(queue.take(0.0, free_slots=1).rows) == 4


def test_a_row_longer_than_the_budget_runs_alone() -> None:
    assert drain(queue_of([500, 500], BatchPolicy(max_batch_tokens=100))) == [[0], [1]]


def test_expired_rows_are_told_and_not_run() -> None:
    queue: LengthQueue[int] = LengthQueue(BatchPolicy())
    queue.add(Waiting(0, 5, enqueued_at=0.0, deadline=1.0))
    queue.add(Waiting(1, 5, enqueued_at=0.0, deadline=3.0))
    queue.add(Waiting(2, 6, enqueued_at=0.0, deadline=1.0))
    taken = queue.take(2.0)
    assert [w.payload for w in taken.rows] == [1]
    assert [w.payload for w in taken.expired] == [0]
    taken = queue.take(2.0)
    assert not taken.rows
    assert [w.payload for w in taken.expired] == [2]


def test_removed_rows_are_gone() -> None:
    queue: LengthQueue[int] = LengthQueue(BatchPolicy())
    rows = [Waiting(index, 5, enqueued_at=0.0) for index in range(3)]
    for row in rows:
        queue.add(row)
    assert queue.remove(rows[1])
    assert not queue.remove(rows[1])
    assert [w.payload for w in queue.take(0.0).rows] == [0, 2]
    assert not queue.remove(rows[0])
    assert len(queue) == 0


@pytest.mark.parametrize("length", [0, 1])
def test_an_empty_row_counts_as_one_token(length: int) -> None:
    assert drain(queue_of([length], BatchPolicy())) == [[0]]


def test_rows_of_unlike_kinds_never_share_a_batch() -> None:
    queue: LengthQueue[int] = LengthQueue(BatchPolicy(length_step=32))
    rows = [Waiting(number, 8, 0.0, kind=number % 3) for number in range(12)]
    for row in rows:
        queue.add(row)
    assert queue.remove(rows[0])
    assert not queue.remove(rows[0])
    batches = drain(queue)
    assert sorted(number for batch in batches for number in batch) == list(range(1, 12))
    assert all(len({number % 3 for number in batch}) == 1 for batch in batches)
