"""Waiting rows by true length, and which of them form the next batch.

Owns order and budgets; does no I/O, starts nothing, reads no clock: the time is
passed in. Rows are opaque but for their length.

Padding costs more than batching saves on CPU (measured, docs/design.md), so rows
share a batch only within one length group; with `length_step=1` that is equal length.
An engine that takes padding out gains by wider groups: weights are read once for more tokens.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Payload = TypeVar("Payload")


_PACKED_STEP = 32
# Steps of 16 to 128 differ by 4 percent (`benchmarks.engines --length-step`): attention alone
# still pads.


def chosen_step(pads_freely: bool) -> int:
    """Return the `length_step` for an engine that does, or does not, compute on padding."""
    return _PACKED_STEP if pads_freely else 1


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """Budgets of a batch; meanings as in `config.CoreLimits`."""

    max_batch_tokens: int = 1024
    max_batch_rows: int = 16
    length_step: int = 1
    age_cap_s: float = 0.0


@dataclass(eq=False, slots=True)
class Waiting(Generic[Payload]):
    """One row that waits: its payload apart from its bookkeeping.

    Attributes:
        payload: whatever the owner needs to run and settle it.
        length: true token count.
        enqueued_at, deadline: seconds on the clock that the owner uses; deadline may be inf.
        order: position in arrival order, set by the queue.
    """

    payload: Payload
    length: int
    enqueued_at: float
    deadline: float = float("inf")
    order: int = field(default=-1)


@dataclass(frozen=True, slots=True)
class Taken(Generic[Payload]):
    """What left the queue: rows to run together, and rows that came too late to run."""

    rows: list[Waiting[Payload]]
    expired: list[Waiting[Payload]]


class LengthQueue(Generic[Payload]):
    """Rows in arrival order within groups of like length."""

    def __init__(self, policy: BatchPolicy) -> None:
        self._policy = policy
        # OrderedDict, not dict: rows leave at the front, and a dict's front
        # gets slower with every row removed there.
        self._groups: dict[int, OrderedDict[int, Waiting[Payload]]] = {}
        self._arrivals = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, waiting: Waiting[Payload]) -> None:
        """Append a row to its group."""
        waiting.order = self._arrivals
        self._arrivals += 1
        group = self._groups.setdefault(self._padded(waiting.length), OrderedDict())
        group[waiting.order] = waiting
        self._count += 1

    def remove(self, waiting: Waiting[Payload]) -> bool:
        """Take a row out, for whom nobody waits any more; False when it had already left."""
        padded = self._padded(waiting.length)
        group = self._groups.get(padded)
        if group is None or group.pop(waiting.order, None) is None:
            return False
        self._shrink(padded, 1)
        return True

    def take(self, now: float, *, free_slots: int = 1) -> Taken[Payload]:
        """Take the rows of the next batch; no rows only when all that were looked at expired.

        The oldest row leads when it has waited for the age cap, else the fullest group does.
        With several slots free the waiting rows are shared out, so that one slot does not
        take everything while its neighbour stays idle.
        """
        expired: list[Waiting[Payload]] = []
        rows: list[Waiting[Payload]] = []
        while self._count and not rows:
            padded = self._leading_group(now)
            limit = self._row_limit(padded, free_slots)
            group = self._groups[padded]
            left = 0
            while group and len(rows) < limit:
                _, waiting = group.popitem(last=False)
                left += 1
                (rows if waiting.deadline > now else expired).append(waiting)
            self._shrink(padded, left)
        return Taken(rows, expired)

    def _padded(self, length: int) -> int:
        step = self._policy.length_step
        return -(-max(length, 1) // step) * step

    def _leading_group(self, now: float) -> int:
        oldest = min(self._groups, key=lambda padded: next(iter(self._groups[padded])))
        first = next(iter(self._groups[oldest].values()))
        if now - first.enqueued_at >= self._policy.age_cap_s:
            return oldest
        return max(self._groups, key=self._fill)

    def _fill(self, padded: int) -> int:
        return min(len(self._groups[padded]), self._budget_rows(padded)) * padded

    def _budget_rows(self, padded: int) -> int:
        return max(1, min(self._policy.max_batch_rows, self._policy.max_batch_tokens // padded))

    def _row_limit(self, padded: int, free_slots: int) -> int:
        share = -(-self._count // max(free_slots, 1))
        return min(self._budget_rows(padded), share)

    def _shrink(self, padded: int, left: int) -> None:
        self._count -= left
        if not self._groups[padded]:
            del self._groups[padded]
