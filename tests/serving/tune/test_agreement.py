"""Answers compared: what counts, by task."""

from __future__ import annotations

import math
from typing import Any

import pytest

from serving.tune.agreement import compare_answers


def labels(**scores: float) -> list[dict[str, Any]]:
    best = sorted(scores.items(), key=lambda pair: -pair[1])
    return [{"label": label, "score": score} for label, score in best]


def entity(index: int, label: str, score: float = 0.9) -> dict[str, Any]:
    return {"entity": label, "index": index, "score": score, "word": "x", "start": 0, "end": 1}


def span(answer: str, start: int, score: float = 0.5) -> dict[str, Any]:
    return {"answer": answer, "start": start, "end": start + len(answer), "score": score}


def word(token: int, score: float = 0.5) -> dict[str, Any]:
    return {"token": token, "token_str": str(token), "score": score, "sequence": ""}


CASES = [
    ("text-classification", labels(a=0.7, b=0.3), labels(a=0.6, b=0.4), 0.0, 0.1),
    ("text-classification", labels(a=0.6, b=0.4), labels(a=0.4, b=0.6), 1.0, 0.2),
    ("zero-shot-classification", labels(a=0.9, b=0.1), labels(a=0.1, b=0.9), 1.0, 0.8),
    ("token-classification", [entity(1, "A"), entity(2, "B")], [entity(1, "A"), entity(2, "C")],
     0.5, 0.0),
    ("token-classification", [entity(1, "A", 0.9)], [entity(1, "A", 0.8)], 0.0, 0.1),
    ("token-classification", [], [], 0.0, 0.0),
    ("question-answering", span("the", 3), span("the", 3, 0.4), 0.0, 0.1),
    ("question-answering", span("the", 3), span("the", 9), 1.0, 0.0),
    ("fill-mask", [word(1, 0.5), word(2, 0.2)], [word(1, 0.4), word(3, 0.2)], 0.0, 0.1),
    ("fill-mask", [[word(1)], [word(2)]], [[word(1)], [word(3)]], 1.0, 0.0),
    ("feature-extraction", [[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.01], [0.0, 1.0]], 0.0, 0.01),
    ("feature-extraction", [1.0, 0.0], [0.0, 1.0], 1.0, 1.0),
    ("feature-extraction", [1.0, 0.0], [1.0], 1.0, math.inf),
    ("sentence-similarity", [0.5], [0.5004], 0.0, 0.0004),
    ("sentence-similarity", [0.5], [0.6], 1.0, 0.1),
    ("text-ranking", [{"index": 1, "score": 0.9}, {"index": 0, "score": 0.1}],
     [{"index": 1, "score": 0.8}, {"index": 0, "score": 0.1}], 0.0, 0.1),
    ("text-ranking", [{"index": 1, "score": 0.5}], [{"index": 0, "score": 0.5}], 1.0, 0.0),
]  # fmt: skip


@pytest.mark.parametrize(("task", "one", "other", "off", "gap"), CASES)
def test_what_counts(task: str, one: Any, other: Any, off: float, gap: float) -> None:
    found = compare_answers(task, [(one, other)])
    assert found.disagreement == pytest.approx(off)
    assert found.max_score_diff == pytest.approx(gap)
    same = compare_answers(task, [(one, one)])
    assert (same.disagreement, same.max_score_diff) == (0.0, 0.0)


def test_a_failure_agrees_with_nothing() -> None:
    good = labels(a=1.0)
    found = compare_answers("text-classification", [(good, None), (good, good)])
    assert (found.disagreement, found.max_score_diff) == (0.5, math.inf)


def test_nothing_to_compare_agrees() -> None:
    assert compare_answers("text-classification", []).disagreement == 0.0
