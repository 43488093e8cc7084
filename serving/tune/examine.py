"""What a candidate answers, looked at once: like the reference? the same with batch-mates?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from registry import ExportError
from serving.tune.agreement import Agreement, compare_answers
from serving.tune.asking import SATURATION, Answers, ask
from serving.tune.contenders import Contender
from serving.tune.items import Inputs
from serving.worker.messages import Done, Predictor

FP32_SCORES = 1e-5
"""How far batch-mates may move a score in fp32."""

_PROBED = 16
_LEAST = 64
_MATES_AT_MOST = 256


@dataclass(frozen=True, slots=True)
class Reference:
    """What the reference answered, each input alone.

    Attributes:
        places: the inputs that it could answer; all others are left out of everything.
        answers: by place.
        lengths: tokens of each input, by its index among all.
        items_per_s: how fast that went.
    """

    places: Sequence[int]
    answers: dict[int, Any]
    lengths: Sequence[int]
    items_per_s: float


@dataclass(frozen=True, slots=True)
class Examination:
    """What one candidate's answers are like.

    Attributes:
        fidelity: how they compare with the reference's, each input alone.
        mates: how the candidate's own compare, alone and in batches.
        batch_invariant: whether batch-mates change no answer.
        items_per_s: at saturation, roughly; to plan the rounds by.
    """

    fidelity: Agreement
    mates: Agreement
    batch_invariant: bool
    items_per_s: float


async def answer_reference(
    worker: Predictor, contender: Contender, inputs: Inputs, *, most_s: float
) -> Reference:
    """Have the reference answer as many inputs as it can in about `most_s` seconds, at least 64.

    Raises:
        ExportError: it can answer none.
        ServingError: the worker died.
    """
    everything = range(len(inputs.items))
    slots = contender.layout.slots
    probe = await ask(worker, inputs, everything[:_PROBED], in_flight=slots)
    rate = _PROBED / probe.seconds
    count = min(len(everything), max(_LEAST, int(rate * most_s)))
    asked = everything[:count]
    answers = await ask(worker, inputs, asked, in_flight=slots)
    done = {
        place: outcome
        for place, outcome in zip(asked, answers.outcomes, strict=True)
        if isinstance(outcome, Done)
    }
    if not done:
        why = getattr(answers.outcomes[0], "message", "no reason")
        raise ExportError(
            f"The model answers none of the inputs: {why}", hint="Give others with --samples."
        )
    return Reference(
        places=[*done],
        answers={place: outcome.value for place, outcome in done.items()},
        lengths=[done[place].tokens if place in done else 0 for place in everything],
        items_per_s=count / answers.seconds,
    )


async def examine(
    worker: Predictor, contender: Contender, inputs: Inputs, reference: Reference
) -> Examination:
    """Compare a candidate with the reference, and with itself in batches.

    Args:
        worker: of the contender, in a layout that batches.
        contender: which.
        inputs: all.
        reference: what to compare with.

    Raises:
        ServingError: the worker died.
    """
    places = reference.places
    alone = await ask(worker, inputs, places, in_flight=contender.layout.slots)
    pairs = [
        (reference.answers[place], value) for place, value in zip(places, alone.values, strict=True)
    ]
    task = contender.task
    fidelity = compare_answers(task, pairs)
    # Neighbours in length, so that what can share a batch does.
    by_length = sorted(range(len(places)), key=lambda at: reference.lengths[places[at]])
    by_length = by_length[:_MATES_AT_MOST]
    together = await ask(worker, inputs, [places[at] for at in by_length], in_flight=SATURATION)
    mates = compare_answers(task, _mates(alone, together, by_length))
    exact = contender.precision != "fp32" or mates.max_score_diff <= FP32_SCORES
    return Examination(
        fidelity=fidelity,
        mates=mates,
        batch_invariant=contender.batch_invariant and mates.disagreement == 0 and exact,
        items_per_s=len(by_length) / together.seconds,
    )


def _mates(alone: Answers, together: Answers, order: Sequence[int]) -> list[tuple[Any, Any]]:
    single = alone.values
    return [
        (single[at], value)
        for number, (at, value) in enumerate(zip(order, together.values, strict=True))
        if together.shared_batch(number)
    ]
