"""Contenders timed in turn, round by round: what else the machine does falls on all alike.

A round's figures are compared with the reference's of the same round, so that a machine that slows
down between two rounds changes no ratio.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice

from serving.errors import ServingError
from serving.tune.asking import SATURATION, ask, long_ones_first
from serving.tune.contenders import Contender
from serving.tune.examine import Reference
from serving.tune.items import Inputs
from serving.tune.workers import Workers, resident_bytes

_LATENCY_SHARE = 0.3
_FEWEST = 16
_MOST_TURNS = 4  # A quick model has seen enough by then.
_HOPELESS = 0.75
_SURE_AFTER_ROUNDS = 2


@dataclass(frozen=True, slots=True)
class Timing:
    """One contender in one round.

    Attributes:
        items_per_s: at saturation.
        p50_ms, p95_ms: of single inputs to the idle worker.
    """

    items_per_s: float
    p50_ms: float
    p95_ms: float


@dataclass(slots=True)
class Timed:
    """A contender and what was measured of it so far.

    Attributes:
        contender: which.
        timings: by number of the round.
        resident_bytes: of its worker after its latest round.
        failure: why it left the race; empty while it is in it.
        hopeless: it was left out of further rounds because others are so much faster.
    """

    contender: Contender
    timings: dict[int, Timing] = field(default_factory=dict)
    resident_bytes: int | None = None
    failure: str = ""
    hopeless: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Attributes:
        rounds: how many.
        seconds: that the reference shall take for all rounds together; others take more or less,
            since all are given the same inputs.
        objective: `throughput`, `latency` or `memory`; who is hopeless is judged by it.
    """

    rounds: int
    seconds: float
    objective: str


class Rounds:
    """The race.

    Args:
        workers: where the contenders run.
        inputs: all.
        reference: which of them to send, and how fast they go.
        plan: how much.
        say: told of every round.
    """

    def __init__(
        self,
        workers: Workers,
        inputs: Inputs,
        reference: Reference,
        plan: Plan,
        say: Callable[[str], None],
    ) -> None:
        self._workers = workers
        self._inputs = inputs
        self._plan = plan
        self._say = say
        each_s = plan.seconds / plan.rounds
        slots_s = each_s * (1 - _LATENCY_SHARE)
        self._crowd = self._some(reference, slots_s)
        self._single = self._some(reference, each_s * _LATENCY_SHARE / 2)
        self._crowd = long_ones_first(self._crowd, reference.lengths)

    async def run(self, contenders: Sequence[Contender]) -> list[Timed]:
        """Time the contenders; the first is what the others are compared with."""
        field_ = [Timed(contender) for contender in contenders]
        for number in range(self._plan.rounds):
            racing = [one for one in field_ if not one.failure and not one.hopeless]
            self._say(f"round {number + 1} of {self._plan.rounds}: {len(racing)} contenders")
            # Forth and back: nobody always comes after the one that heats the machine.
            for timed in racing if number % 2 == 0 else reversed(racing):
                await self._visit(timed, number)
            if number + 1 >= _SURE_AFTER_ROUNDS:
                await self._drop_hopeless(field_)
        return field_

    async def _visit(self, timed: Timed, number: int) -> None:
        contender = timed.contender
        try:
            worker = await self._workers.get(contender)
            # What has slept between two rounds has cold caches.
            await ask(worker.client, self._inputs, self._single[:2], in_flight=1)
            single = await ask(worker.client, self._inputs, self._single, in_flight=1)
            crowd = await ask(worker.client, self._inputs, self._crowd, in_flight=SATURATION)
        except ServingError as error:
            timed.failure = f"failed while it was measured: {error.message}"
            await self._workers.stop(contender)
            return
        latencies_ms = sorted(single.latencies_ms)
        timed.resident_bytes = resident_bytes(worker.pid)
        timed.timings[number] = Timing(
            items_per_s=len(self._crowd) / crowd.seconds,
            p50_ms=statistics.median(latencies_ms),
            p95_ms=latencies_ms[min(len(latencies_ms) - 1, round(0.95 * len(latencies_ms)))],
        )

    async def _drop_hopeless(self, field_: list[Timed]) -> None:
        """Spend the time on those that may still win; the reference stays to compare with."""
        figures = {
            id(one): ratios(one, field_[0], self._plan.objective)
            for one in field_
            if not one.failure and not one.hopeless
        }
        surest = max((min(values) for values in figures.values() if values), default=0.0)
        for one in field_[1:]:
            values = figures.get(id(one))
            if values and max(values) < _HOPELESS * surest:
                one.hopeless = True
                await self._workers.stop(one.contender)

    def _some(self, reference: Reference, seconds: float) -> list[int]:
        """Return inputs for about so many seconds of the reference, the first again if need be."""
        most = _MOST_TURNS * len(reference.places)
        count = min(most, max(_FEWEST, int(reference.items_per_s * seconds)))
        return list(islice(cycle(reference.places), count))


def ratios(timed: Timed, reference: Timed, objective: str) -> list[float]:
    """Return how many times better than the reference each shared round was; more is better.

    For `memory` there is nothing to see before the end: the list is empty.
    """
    shared = timed.timings.keys() & reference.timings.keys()
    pairs = [(timed.timings[number], reference.timings[number]) for number in sorted(shared)]
    if objective == "throughput":
        return [one.items_per_s / base.items_per_s for one, base in pairs]
    if objective == "latency":
        return [base.p50_ms / one.p50_ms for one, base in pairs]
    return []
