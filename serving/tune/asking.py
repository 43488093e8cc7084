"""Asking a worker: one input after the other, as many at once as it has slots, or at saturation."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from serving.errors import ServingError
from serving.tune.items import Inputs
from serving.worker.messages import Done, Outcome, Predictor, PredictRequest

SATURATION = 64
"""Requests in flight at saturation: enough for every slot to find equal lengths to batch."""

_ITEM_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Answers:
    """What came of some inputs.

    Attributes:
        outcomes: one for each input, in order.
        latencies_ms: of each, from sending to its answer.
        seconds: from the first sent to the last answered.
    """

    outcomes: Sequence[Outcome]
    latencies_ms: Sequence[float]
    seconds: float

    @property
    def values(self) -> list[Any]:
        """The answers; None for an input that failed."""
        return [one.value if isinstance(one, Done) else None for one in self.outcomes]

    def shared_batch(self, index: int) -> bool:
        """Whether a row of the input ran together with another row."""
        outcome = self.outcomes[index]
        return isinstance(outcome, Done) and max(outcome.batch_rows) > 1


async def ask(
    worker: Predictor, inputs: Inputs, places: Sequence[int], *, in_flight: int
) -> Answers:
    """Send inputs one by one, `in_flight` at a time; return what came of them, in their order.

    Args:
        worker: answers.
        inputs: of which
        places: say which to send, in which order.
        in_flight: requests that wait for an answer at once; 1 leaves the worker idle in between.

    Raises:
        ServingError: the worker died or refused; a single input that fails is an outcome.
    """
    outcomes: list[Outcome | None] = [None] * len(places)
    latencies_ms = [0.0] * len(places)
    waiting = iter(range(len(places)))

    async def send() -> None:
        for position in waiting:
            began = time.perf_counter()
            item = inputs.items[places[position]]
            request = PredictRequest([item], dict(inputs.parameters), _ITEM_TIMEOUT_S)
            (outcomes[position],) = await worker.predict(request)
            latencies_ms[position] = (time.perf_counter() - began) * 1e3

    started = time.perf_counter()
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(in_flight, len(places))):
                group.create_task(send())
    except BaseExceptionGroup as error:
        raise _first(error) from error
    seconds = time.perf_counter() - started
    return Answers([one for one in outcomes if one is not None], latencies_ms, seconds)


def long_ones_first(places: Sequence[int], lengths: Sequence[int]) -> list[int]:
    """Return the places with the last quarter sorted, longest first.

    A long input that comes last leaves the other slots idle, and the figure would be of that.
    """
    cut = len(places) - len(places) // 4
    return [*places[:cut], *sorted(places[cut:], key=lambda place: -lengths[place])]


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            return _first(error)
        if isinstance(error, ServingError):
            return error
    return group.exceptions[0]
