"""The best spans of a text by the scores of where they start and end; numpy alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from serving.tasks.protocol import Array

_MASKED = np.float32(-10000.0)


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens `first` to `last` of a row, and how probable they are the answer."""

    first: int
    last: int
    score: float


def probabilities(logits: Array, allowed: Array) -> Array:
    """Return probabilities over the allowed tokens of a row."""
    masked = np.where(allowed, logits, _MASKED)
    shifted = np.exp(masked - masked.max())
    return np.asarray(shifted / shifted.sum())


def best_spans(start: Array, end: Array, allowed: Array, count: int, longest: int) -> list[Span]:
    """Return at most `count` spans of at most `longest` tokens, best first.

    Args:
        start, end: probability of each token to begin or end the answer.
        allowed: which tokens may be in an answer.
        count: as transformers counts: candidates that turn out not to be allowed count too.
        longest: in tokens.
    """
    tokens = len(start)
    longest = min(longest, tokens)
    # Only the band of spans that are short enough: row = first token, column = length - 1.
    lengths = np.arange(longest)
    last = np.arange(tokens)[:, None] + lengths[None, :]
    inside = last < tokens
    last = np.minimum(last, tokens - 1)
    scores = np.where(inside, start[:, None] * end[last], 0.0)
    flat = scores.ravel()
    order = np.argsort(-flat, kind="stable")[:count]
    spans = []
    for place in order.tolist():
        first, length = divmod(place, longest)
        final = first + length
        if final < tokens and allowed[first] and allowed[final]:
            spans.append(Span(first, final, float(flat[place])))
    return spans
