"""How an export's answers compare with torch's: differences, and the agreement of each task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from registry.export.parity import Answer, Output
from registry.export.tasks import Agreement

_WORST = float(np.finfo(np.float64).max)
_SAME_DIRECTION = 0.9999  # cosine of two vectors of one token


@dataclass(frozen=True, slots=True)
class Comparison:
    """Numbers of a comparison; see `ParityReport` for what each means."""

    max_abs_diff: float
    max_batched_abs_diff: float
    max_invariance_abs_diff: float
    percentiles: Mapping[str, float]
    label_agreement: float
    batched_label_agreement: float
    largest_reference: float


def compare(
    reference: Sequence[Answer],
    alone: Sequence[Answer],
    batched: Sequence[tuple[int, Answer]],
    agreement: Agreement,
    problem_type: str | None,
) -> Comparison:
    """Compare answers of an export, alone and batched, with the reference.

    Args:
        reference: per input, torch alone.
        alone: per input, the export alone.
        batched: index of an input and the export's answer in a batch.
        agreement: what has to agree.
        problem_type: as in the model's config.
    """
    diffs = [_diff(one, other) for one, other in zip(reference, alone, strict=True)]
    in_batches = [_diff(reference[index], answer) for index, answer in batched]
    agree = _AGREEMENTS[agreement]

    def share(pairs: list[tuple[Answer, Answer]]) -> float:
        return float(np.mean([agree(one, other, problem_type) for one, other in pairs]))

    return Comparison(
        max_abs_diff=max(diffs),
        max_batched_abs_diff=max(in_batches),
        max_invariance_abs_diff=max(_diff(alone[index], answer) for index, answer in batched),
        percentiles={
            f"p{part}": float(np.percentile(diffs, part, method="higher")) for part in (50, 90, 99)
        },
        label_agreement=share(list(zip(reference, alone, strict=True))),
        batched_label_agreement=share([(reference[index], answer) for index, answer in batched]),
        largest_reference=max(
            float(np.abs(output).max()) for answer in reference for output in answer.values()
        ),
    )


def _diff(one: Answer, other: Answer) -> float:
    return max(_output_diff(output, other[name]) for name, output in one.items())


def _output_diff(one: Output, other: Output) -> float:
    if one.shape != other.shape or not np.isfinite(other).all():
        return _WORST
    return float(np.abs(one.astype(np.float64) - other).max())


def _labels(one: Answer, other: Answer, problem_type: str | None) -> float:
    """1 for the same label or labels."""
    first, second = one["logits"], other["logits"]
    if problem_type == "regression" or first.size == 1:
        # There is no label; the difference itself is judged.
        return float(np.isfinite(second).all())
    if problem_type == "multi_label_classification":
        return float(np.array_equal(first > 0, second > 0))
    return float(first.argmax() == second.argmax())


def _tokens(one: Answer, other: Answer, _: str | None) -> float:
    """Share of tokens with the same label, or the same best word."""
    return float(np.mean(one["logits"].argmax(axis=-1) == other["logits"].argmax(axis=-1)))


def _span(one: Answer, other: Answer, _: str | None) -> float:
    """1 for the same first and the same last token."""
    return float(all(one[name].argmax() == other[name].argmax() for name in one))


def _direction(one: Answer, other: Answer, _: str | None) -> float:
    """Share of tokens whose vectors have nearly the same direction."""
    (first,), (second,) = one.values(), other.values()
    sizes = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    cosines = (first * second).sum(axis=-1) / np.maximum(sizes, 1e-12)
    return float(np.mean(cosines >= _SAME_DIRECTION))


_AGREEMENTS: Mapping[Agreement, Callable[[Answer, Answer, str | None], float]] = {
    "label": _labels,
    "tokens": _tokens,
    "span": _span,
    "direction": _direction,
}
