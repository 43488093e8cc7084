"""Tokens with scores -> entities, by transformers' aggregation strategies; pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.tasks.protocol import Array

STRATEGIES = ("none", "simple", "first", "average", "max")


@dataclass(frozen=True, slots=True)
class Token:
    """A token with its scores.

    Attributes:
        word: as in the vocabulary; for an unknown one, as in the text.
        scores: by label.
        start, end: characters in the text.
        index: position in its row, special tokens counted.
        continues: whether it continues the word before it.
    """

    word: str
    scores: Array
    start: int
    end: int
    index: int
    continues: bool


@dataclass(frozen=True, slots=True)
class _Labelled:
    """A token or a word with the label that it was given."""

    label: str
    score: Any
    word: str
    start: int
    end: int


def aggregate(
    tokens: Sequence[Token],
    strategy: str,
    labels: Sequence[str],
    join: Callable[[Sequence[str]], str],
) -> list[dict[str, Any]]:
    """Return entities as transformers' pipeline does.

    Args:
        tokens: in the order of the text.
        strategy: one of `STRATEGIES`.
        labels: names by output, perhaps with `B-` and `I-` before them.
        join: tokens -> text.
    """
    if strategy == "none":
        return [_plain(token, labels) for token in tokens]
    if strategy == "simple":
        labelled = [
            _labelled(token.scores, labels, token.word, token.start, token.end) for token in tokens
        ]
    else:
        labelled = [_word(group, strategy, labels, join) for group in _words(tokens)]
    return [_entity(group, join) for group in _runs(labelled)]


def without_overlaps(entities: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the longest, then the best of entities that overlap, in the order of the text."""
    kept: list[dict[str, Any]] = []
    for entity in sorted(entities, key=lambda one: one["start"]):
        if not kept or not kept[-1]["start"] <= entity["start"] < kept[-1]["end"]:
            kept.append(entity)
        elif _weight(entity) > _weight(kept[-1]):
            kept[-1] = entity
    return kept


def _weight(entity: dict[str, Any]) -> tuple[int, float]:
    return entity["end"] - entity["start"], entity["score"]


def _plain(token: Token, labels: Sequence[str]) -> dict[str, Any]:
    best = int(token.scores.argmax())
    return {
        "entity": labels[best],
        "score": float(token.scores[best]),
        "index": token.index,
        "word": token.word,
        "start": token.start,
        "end": token.end,
    }


def _labelled(scores: Array, labels: Sequence[str], word: str, start: int, end: int) -> _Labelled:
    best = int(scores.argmax())
    return _Labelled(labels[best], scores[best], word, start, end)


def _words(tokens: Sequence[Token]) -> list[list[Token]]:
    words: list[list[Token]] = []
    for token in tokens:
        if words and token.continues:
            words[-1].append(token)
        else:
            words.append([token])
    return words


def _word(
    tokens: Sequence[Token],
    strategy: str,
    labels: Sequence[str],
    join: Callable[[Sequence[str]], str],
) -> _Labelled:
    """Give the tokens of one word one label."""
    if strategy == "first":
        scores = tokens[0].scores
    elif strategy == "max":
        scores = max(tokens, key=lambda token: float(token.scores.max())).scores
    else:
        scores = np.mean(np.stack([token.scores for token in tokens]), axis=0)
    word = join([token.word for token in tokens])
    return _labelled(scores, labels, word, tokens[0].start, tokens[-1].end)


def _runs(labelled: Sequence[_Labelled]) -> list[list[_Labelled]]:
    """Put neighbours of one label together; a `B-` begins anew."""
    runs: list[list[_Labelled]] = []
    for one in labelled:
        begins, tag = _tag(one.label)
        if runs and tag == _tag(runs[-1][-1].label)[1] and not begins:
            runs[-1].append(one)
        else:
            runs.append([one])
    return runs


def _tag(label: str) -> tuple[bool, str]:
    """Return whether the label begins an entity, and its name without `B-` or `I-`."""
    return label.startswith("B-"), label[2:] if label.startswith(("B-", "I-")) else label


def _entity(run: Sequence[_Labelled], join: Callable[[Sequence[str]], str]) -> dict[str, Any]:
    return {
        "entity_group": run[0].label.split("-", 1)[-1],
        "score": float(np.mean([one.score for one in run])),
        "word": join([one.word for one in run]),
        "start": run[0].start,
        "end": run[-1].end,
    }
