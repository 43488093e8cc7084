"""Two answers to one input compared: what has to be the same, by task, and how far scores differ.

Answers are what a client gets (a task's `postprocess`), so that nothing that a client would notice
is missed. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_SAME_DIRECTION = 0.999  # cosine of two embeddings of one text, for a lossy precision
_WORST = math.inf


@dataclass(frozen=True, slots=True)
class Agreement:
    """How one list of answers compares with another.

    Attributes:
        disagreement: share that differs in what the task answers, 0 to 1.
        max_score_diff: largest difference of a score; infinite where answers have no like scores.
        compared: pairs that were looked at.
    """

    disagreement: float
    max_score_diff: float
    compared: int


def compare_answers(task: str, pairs: Sequence[tuple[Any, Any]]) -> Agreement:
    """Compare pairs of answers of a task; no pairs agree.

    Args:
        task: its name.
        pairs: reference and other; an answer of None is a failure, which agrees with nothing.
    """
    if not pairs:
        return Agreement(0.0, 0.0, 0)
    differs = _DIFFERENCES.get(task, _exactly)
    shares, gaps = [], []
    for one, other in pairs:
        if one is None or other is None:
            shares.append(1.0)
            gaps.append(_WORST)
            continue
        shares.append(differs(one, other))
        gaps.append(_score_gap(task, one, other))
    return Agreement(sum(shares) / len(shares), max(gaps), len(pairs))


def _top_label(one: Any, other: Any) -> float:
    """For lists of labels with scores, best first."""
    return float(_first(one, "label") != _first(other, "label"))


def _first(answer: Any, key: str) -> Any:
    return answer[0].get(key) if answer else None


def _token_labels(one: Any, other: Any) -> float:
    """Share of tokens with another label."""
    left = {entity["index"]: entity["entity"] for entity in one}
    right = {entity["index"]: entity["entity"] for entity in other}
    places = left.keys() | right.keys()
    wrong = sum(left.get(place) != right.get(place) for place in places)
    return wrong / len(places) if places else 0.0


def _span(one: Any, other: Any) -> float:
    return float(any(one.get(key) != other.get(key) for key in ("answer", "start", "end")))


def _word(one: Any, other: Any) -> float:
    """Best words for the masks."""
    left, right = ([a] if a and isinstance(a[0], Mapping) else a for a in (one, other))
    same = [_first(x, "token") == _first(y, "token") for x, y in zip(left, right, strict=False)]
    return float(len(left) != len(right) or not all(same))


def _direction(one: Any, other: Any) -> float:
    left, right = [*_numbers(one)], [*_numbers(other)]
    if len(left) != len(right):
        return 1.0
    size = math.hypot(*left) * math.hypot(*right)
    cosine = sum(a * b for a, b in zip(left, right, strict=True)) / max(size, 1e-12)
    return float(cosine < _SAME_DIRECTION)


def _ranking(one: Any, other: Any) -> float:
    return float(_first(one, "index") != _first(other, "index"))


def _cosines(one: Any, other: Any) -> float:
    return float(_gap(one, other) > 1 - _SAME_DIRECTION)


def _exactly(one: Any, other: Any) -> float:
    return float(one != other)


_DIFFERENCES: Mapping[str, Callable[[Any, Any], float]] = {
    "text-classification": _top_label,
    "zero-shot-classification": _top_label,
    "token-classification": _token_labels,
    "question-answering": _span,
    "fill-mask": _word,
    "feature-extraction": _direction,
    "sentence-similarity": _cosines,
    "text-ranking": _ranking,
}


def _score_gap(task: str, one: Any, other: Any) -> float:
    """Return the largest difference of a score of the same label, token or place."""
    if task == "question-answering":
        return _gap(one.get("score"), other.get("score"))
    return _gap(_keyed(one), _keyed(other))


def _keyed(answer: Any) -> Any:
    """Return labelled scores by label, so that another order compares the same labels."""
    if not isinstance(answer, list) or not answer:
        return answer
    if isinstance(answer[0], list):
        return [_keyed(one) for one in answer]
    if not isinstance(answer[0], Mapping):
        return answer
    keys = ("entity", "index") if "entity" in answer[0] else ("label", "token", "index")
    return {
        tuple(one.get(key) for key in keys): one.get("score")
        for one in answer
        if isinstance(one, Mapping)
    }


def _gap(one: Any, other: Any) -> float:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        # A label that only one of both lists shows says nothing of its score.
        return max((_gap(one[key], other[key]) for key in one.keys() & other.keys()), default=0.0)
    if isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            return _WORST
        return max((_gap(a, b) for a, b in zip(one, other, strict=True)), default=0.0)
    if isinstance(one, float | int) and isinstance(other, float | int):
        return abs(one - other)
    return 0.0


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, list):
        for inner in value:
            yield from _numbers(inner)
    else:
        yield float(value)
