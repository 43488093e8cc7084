"""How much of what a lossy precision answers agrees with fp32; near ties of drawn inputs apart.

Inputs that were drawn over the vocabulary are no texts: a trained model is undecided about many of
them, and there any rounding turns the label. Of those only the decided ones count: where fp32's
best answer leads by at least `DECIDED_MARGIN`. Held-out samples are what the model is for: where
there are enough of them they alone count, every one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from registry.export.parity import Answer
from registry.export.tasks import Agreement
from registry.export.text_inputs import ENOUGH_SAMPLES

DECIDED_MARGIN = 0.2
"""Lead of the best logit: of two labels the scores are then 0.55 and 0.45."""

SAME_DIRECTION = 0.99
"""Cosine of two vectors of one token that counts as the same for a lossy precision."""

_Flags = np.ndarray[Any, np.dtype[np.bool_]]


def agreement_of(
    agreement: Agreement,
    problem_type: str | None,
    reference: Sequence[Answer],
    alone: Sequence[Answer],
    batched: Sequence[tuple[int, Answer]],
    held_out: int,
) -> tuple[float, int]:
    """Return the share that agrees, alone or in batches (the smaller), and over how many.

    Args:
        agreement: what has to agree.
        problem_type: as in the model's config.
        reference: fp32's answers; the first `held_out` of them to samples.
        alone, batched: the candidate's, as `comparison.compare` takes them.
        held_out: how many samples there are.
    """
    every = held_out >= ENOUGH_SAMPLES // 2
    inputs = held_out if every else len(reference)

    def counted(pairs: Sequence[tuple[Answer, Answer]]) -> _Flags:
        parts = [_agrees(one, other, agreement, problem_type) for one, other in pairs]
        flags = [same if every else same[decided] for same, decided in parts]
        return np.concatenate(flags) if flags else np.zeros(0, dtype=bool)

    by_itself = counted([(reference[i], alone[i]) for i in range(inputs)])
    in_batches = counted([(reference[i], answer) for i, answer in batched if i < inputs])
    if not by_itself.size:
        return 1.0, 0
    return float(min(by_itself.mean(), in_batches.mean())), int(by_itself.size)


def _agrees(
    one: Answer, other: Answer, agreement: Agreement, problem_type: str | None
) -> tuple[_Flags, _Flags]:
    """Return, for each label, token or vector of an answer: does it agree, and is it decided."""
    if agreement == "direction":
        (first,), (second,) = one.values(), other.values()
        same = _cosines(first, second) >= SAME_DIRECTION
        return same, np.ones_like(same)
    if agreement == "span":
        parts = [_best(one[name][None], other[name][None]) for name in one]
        return (
            np.concatenate([same for same, _ in parts]),
            np.concatenate([decided for _, decided in parts]),
        )
    first, second = one["logits"], other["logits"]
    if agreement == "label" and (problem_type == "regression" or first.shape[-1] == 1):
        finite = np.isfinite(second)
        return finite, np.ones_like(finite)
    if agreement == "label" and problem_type == "multi_label_classification":
        return (first > 0) == (second > 0), np.abs(first) >= DECIDED_MARGIN
    return _best(np.atleast_2d(first), np.atleast_2d(second))


def _best(first: Any, second: Any) -> tuple[_Flags, _Flags]:
    """Compare the best of each row; arrays of shape (rows, choices)."""
    same = first.argmax(axis=-1) == second.argmax(axis=-1)
    if first.shape[-1] < 2:
        return same, np.ones_like(same)
    top = np.partition(first, -2, axis=-1)
    return same, (top[..., -1] - top[..., -2]) >= DECIDED_MARGIN


def _cosines(first: Any, second: Any) -> Any:
    sizes = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    return np.atleast_1d((first * second).sum(axis=-1) / np.maximum(sizes, 1e-12))
