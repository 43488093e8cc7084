"""What may follow: rules that change the scores of next tokens before one is chosen; numpy alone.

They are those of `transformers.generate`, in its order, for the settings that models with encoder
and decoder come with. Scores are logits when one sequence grows, and log-probabilities in a beam
search; the rules are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from serving.tasks.protocol import Array

Rule: TypeAlias = Callable[[Array, Array], None]
"""Changes scores, float32 of shape (sequences, vocabulary), in place; the first argument are the
tokens of the sequences so far, shape (sequences, tokens), the first token of a prompt included."""

_NEVER = -np.inf


def build_rules(
    settings: Mapping[str, Any], *, ends: Sequence[int], max_length: int, source: Sequence[int]
) -> tuple[Rule, ...]:
    """Return the rules that these settings ask for, in the order in which they apply.

    Args:
        settings: by transformers' names; see `SETTINGS`.
        ends: tokens that end a sequence.
        max_length: longest sequence, its first token included.
        source: tokens that the encoder was given.
    """
    last = list(ends)
    rules: list[Rule] = []

    def add(name: str, make: Callable[[Any], Rule], idle: object = None) -> None:
        value = settings.get(name)
        if value is not None and value != idle:
            rules.append(make(value))

    add("encoder_repetition_penalty", lambda much: _favour(much, source), 1.0)
    add("repetition_penalty", _penalise, 1.0)
    add("no_repeat_ngram_size", _no_repeat, 0)
    add("encoder_no_repeat_ngram_size", lambda size: _no_echo(size, source), 0)
    add("bad_words_ids", lambda words: _forbid_words(words, last), [])
    if last:
        add("min_length", lambda least: _not_before(least, last), 0)
        add("min_new_tokens", lambda least: _not_before(least + 1, last), 0)
    add("forced_bos_token_id", lambda token: _force([token], 1))
    add("forced_eos_token_id", lambda token: _force(_listed(token), max_length - 1))
    add("remove_invalid_values", lambda _: _remove_invalid, False)
    if last:
        add("exponential_decay_length_penalty", lambda how: _urge(how[0] + 1, how[1], last))
    add("suppress_tokens", lambda tokens: _forbid(tokens, None), [])
    begin = 1 if settings.get("forced_bos_token_id") is None else 2
    add("begin_suppress_tokens", lambda tokens: _forbid(tokens, begin), [])
    return tuple(rules)


SETTINGS = frozenset(
    {
        "bad_words_ids",
        "begin_suppress_tokens",
        "encoder_no_repeat_ngram_size",
        "encoder_repetition_penalty",
        "exponential_decay_length_penalty",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "min_length",
        "min_new_tokens",
        "no_repeat_ngram_size",
        "remove_invalid_values",
        "repetition_penalty",
        "suppress_tokens",
    }
)
"""Settings that `build_rules` reads."""


def _listed(token: int | Sequence[int]) -> list[int]:
    return [token] if isinstance(token, int) else list(token)


def _within(tokens: Sequence[int], scores: Array) -> list[int]:
    return [token for token in tokens if 0 <= token < scores.shape[-1]]


def _penalise(penalty: float) -> Rule:
    def rule(sequences: Array, scores: Array) -> None:
        for sequence, row in zip(sequences, scores, strict=True):
            seen = _within(np.unique(sequence).tolist(), scores)
            row[seen] = np.where(row[seen] < 0, row[seen] * penalty, row[seen] / penalty)

    return rule


def _favour(penalty: float, source: Sequence[int]) -> Rule:
    def rule(_sequences: Array, scores: Array) -> None:
        known = _within(sorted(set(source)), scores)
        part = scores[:, known]
        scores[:, known] = np.where(part < 0, part / penalty, part * penalty)

    return rule


def _no_repeat(size: int) -> Rule:
    def rule(sequences: Array, scores: Array) -> None:
        length = sequences.shape[1]
        if length < size:
            return
        windows = np.lib.stride_tricks.sliding_window_view(sequences, size, axis=1)
        begun = sequences[:, None, length + 1 - size :]
        matches = (windows[..., :-1] == begun).all(axis=-1)
        for row, found, window in zip(scores, matches, windows, strict=True):
            row[_within(window[found, -1].tolist(), scores)] = _NEVER

    return rule


def _no_echo(size: int, source: Sequence[int]) -> Rule:
    follows: dict[tuple[int, ...], list[int]] = {}
    for start in range(len(source) - size + 1):
        *begun, last = source[start : start + size]
        follows.setdefault(tuple(begun), []).append(last)

    def rule(sequences: Array, scores: Array) -> None:
        start = sequences.shape[1] + 1 - size
        for sequence, row in zip(sequences, scores, strict=True):
            begun = tuple(sequence[start:].tolist())
            row[_within(follows.get(begun, []), scores)] = _NEVER

    return rule


def _forbid_words(words: Sequence[Sequence[int]], ends: Sequence[int]) -> Rule:
    """Forbid the last token of each word where the others stand before it; an end is no word."""
    wanted = [list(word) for word in words if word and list(word) not in [[end] for end in ends]]

    def rule(sequences: Array, scores: Array) -> None:
        for sequence, row in zip(sequences.tolist(), scores, strict=True):
            for *begun, last in wanted:
                fits = len(begun) <= len(sequence)
                if last < len(row) and fits and sequence[len(sequence) - len(begun) :] == begun:
                    row[last] = _NEVER

    return rule


def _not_before(length: int, ends: Sequence[int]) -> Rule:
    def rule(sequences: Array, scores: Array) -> None:
        if sequences.shape[1] < length:
            scores[:, ends] = _NEVER

    return rule


def _force(tokens: Sequence[int], length: int) -> Rule:
    def rule(sequences: Array, scores: Array) -> None:
        if sequences.shape[1] == length:
            scores[:] = _NEVER
            scores[:, tokens] = 0.0

    return rule


def _forbid(tokens: Sequence[int], length: int | None) -> Rule:
    def rule(sequences: Array, scores: Array) -> None:
        if length is None or sequences.shape[1] == length:
            scores[:, _within(tokens, scores)] = _NEVER

    return rule


def _urge(start: int, factor: float, ends: Sequence[int]) -> Rule:
    def rule(sequences: Array, scores: Array) -> None:
        over = sequences.shape[1] - start
        if over > 0:
            part = scores[:, ends]
            more = np.abs(part) * np.float32(factor**over - 1)
            scores[:, ends] = part + np.where(np.isfinite(part), more, np.float32(0))

    return rule


def _remove_invalid(_sequences: Array, scores: Array) -> None:
    most = np.finfo(scores.dtype).max
    np.nan_to_num(scores, copy=False, nan=0.0, posinf=most, neginf=-most)
