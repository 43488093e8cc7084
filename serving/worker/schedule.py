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
from typing import Generic, TypeAlias, TypeVar

Payload = TypeVar("Payload")

_Group: TypeAlias = tuple[int, int]
"""Padded length and kind of the rows that may share a batch."""


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
        length: true token count, or what else the task counts.
        enqueued_at, deadline: seconds on the clock that the owner uses; deadline may be inf.
        kind: rows of unlike kinds never share a batch.
        order: position in arrival order, set by the queue.
    """

    payload: Payload
    length: int
    enqueued_at: float
    deadline: float = float("inf")
    kind: int = 0
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
        self._groups: dict[_Group, OrderedDict[int, Waiting[Payload]]] = {}
        self._arrivals = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, waiting: Waiting[Payload]) -> None:
        """Append a row to its group."""
        waiting.order = self._arrivals
        self._arrivals += 1
        group = self._groups.setdefault(self._group_of(waiting), OrderedDict())
        group[waiting.order] = waiting
        self._count += 1

    def remove(self, waiting: Waiting[Payload]) -> bool:
        """Take a row out, for whom nobody waits any more; False when it had already left."""
        key = self._group_of(waiting)
        group = self._groups.get(key)
        if group is None or group.pop(waiting.order, None) is None:
            return False
        self._shrink(key, 1)
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
            key = self._leading_group(now)
            limit = self._row_limit(key[0], free_slots)
            group = self._groups[key]
            left = 0
            while group and len(rows) < limit:
                _, waiting = group.popitem(last=False)
                left += 1
                (rows if waiting.deadline > now else expired).append(waiting)
            self._shrink(key, left)
        return Taken(rows, expired)

    def _group_of(self, waiting: Waiting[Payload]) -> _Group:
        step = self._policy.length_step
        return -(-max(waiting.length, 1) // step) * step, waiting.kind

    def _leading_group(self, now: float) -> _Group:
        oldest = min(self._groups, key=lambda key: next(iter(self._groups[key])))
        first = next(iter(self._groups[oldest].values()))
        if now - first.enqueued_at >= self._policy.age_cap_s:
            return oldest
        return max(self._groups, key=self._fill)

    def _fill(self, key: _Group) -> int:
        return min(len(self._groups[key]), self._budget_rows(key[0])) * key[0]

    def _budget_rows(self, padded: int) -> int:
        return max(1, min(self._policy.max_batch_rows, self._policy.max_batch_tokens // padded))

    def _row_limit(self, padded: int, free_slots: int) -> int:
        share = -(-self._count // max(free_slots, 1))
        return min(self._budget_rows(padded), share)

    def _shrink(self, key: _Group, left: int) -> None:
        self._count -= left
        if not self._groups[key]:
            del self._groups[key]
