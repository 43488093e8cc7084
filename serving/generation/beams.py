"""Beam search, step by step as `transformers.generate` does it; numpy alone.

Of all continuations of the running sequences the best are taken, more than there are beams, so that
enough go on when some of them end. Sequences that ended compete by their log-probability divided
by a power of their length; the search is over when none that still runs can become better.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from serving.errors import NonFiniteOutputError
from serving.generation.protocol import Move
from serving.generation.rules import Rule
from serving.generation.warping import Warper
from serving.tasks.protocol import Array

EarlyStopping = bool | Literal["never"]

_UNSEEN = np.float32(-1.0e9)
"""Score of what does not count; large enough, and finite as in transformers."""


@dataclass(frozen=True, slots=True)
class BeamPolicy:
    """How a beam search chooses.

    Attributes:
        beams: sequences that run at once.
        returned: sequences that are wanted, the best first; at most `beams`.
        length_penalty: power of the length by which a score is divided; above 0 favours long ones.
        early_stopping: True ends as soon as `beams` sequences ended; False when the best running
            one is worse than all that ended, at its length of now; `never` when it cannot become
            better at any length.
        ends: tokens that end a sequence.
        max_length: longest sequence, its first token included.
        sampler: draws continuations in place of taking the best; None takes the best.
    """

    beams: int
    returned: int = 1
    length_penalty: float = 1.0
    early_stopping: EarlyStopping = False
    ends: tuple[int, ...] = ()
    max_length: int = 20
    sampler: np.random.Generator | None = None

    @property
    def kept(self) -> int:
        """Continuations that are looked at in a step."""
        return max(2, 1 + len(self.ends)) * self.beams


@dataclass(frozen=True, slots=True)
class _Ended:
    """A sequence that ended, or the room for one."""

    tokens: tuple[int, ...]
    score: np.float32
    counts: bool


@dataclass(slots=True)
class BeamSearch:
    """A search with several sequences at once; see `serving.generation.protocol.Search`.

    Args:
        first: the token that every sequence begins with.
        policy: how it chooses.
        rules, warpers: change log-probabilities before continuations are compared.
    """

    first: int
    policy: BeamPolicy
    rules: tuple[Rule, ...] = ()
    warpers: tuple[Warper, ...] = ()
    _running: Array = field(init=False)
    _scores: Array = field(init=False)
    _ended: list[_Ended] = field(init=False)
    _improvable: bool = field(init=False, default=True)

    def __post_init__(self) -> None:
        beams = self.policy.beams
        self._running = np.full((beams, 1), self.first, dtype=np.int64)
        self._scores = np.full(beams, _UNSEEN, dtype=np.float32)
        # All begin alike: but for the first, their continuations must not count.
        self._scores[0] = 0.0
        self._ended = [_Ended((), _UNSEEN, False)] * beams

    def advance(self, logits: Array) -> Move:
        """Choose the continuations of this step.

        Raises:
            NonFiniteOutputError: the model answered NaN.
        """
        if np.isnan(logits).any():
            raise NonFiniteOutputError("The model answered NaN.")
        beams = self.policy.beams
        prompt = len(logits) == 1 and self._running.shape[1] == 1
        scores = self._continuations(np.repeat(logits, beams, axis=0) if prompt else logits)
        best = self._best(scores)
        parents, tokens = np.divmod(best, logits.shape[-1])
        found = scores.reshape(-1)[best]
        length = self._running.shape[1] + 1
        done = np.isin(tokens, self.policy.ends) | (length >= self.policy.max_length)
        self._end(parents, tokens, found, done)
        # What just ended must not go on; everything may have ended.
        alive = found + np.where(done, _UNSEEN, np.float32(0))
        chosen = np.argsort(-alive, kind="stable")[:beams]
        parents, tokens = parents[chosen], tokens[chosen]
        self._running = np.concatenate([self._running[parents], tokens[:, None]], axis=1)
        self._scores = alive[chosen]
        self._improvable = self._improvable and self._may_improve(length)
        if not self._improvable or done.all() or self._full():
            return Move(())
        return Move(tokens.tolist(), (0,) * beams if prompt else parents.tolist())

    @property
    def sequences(self) -> list[tuple[int, ...]]:
        """Tokens of the wanted sequences, the best first, without the first token of all."""
        return [ended.tokens for ended in self._ended[: self.policy.returned]]

    @property
    def scores(self) -> list[float]:
        """Their log-probabilities, divided as `length_penalty` says."""
        return [float(ended.score) for ended in self._ended[: self.policy.returned]]

    def _continuations(self, logits: Array) -> Array:
        """Return the scores of all continuations, (beams, vocabulary)."""
        scores = log_softmax(logits)
        for rule in self.rules:
            rule(self._running, scores)
        for warper in self.warpers:
            warper(scores)
        scores += self._scores[:, None]
        return scores

    def _best(self, scores: Array) -> Array:
        """Return the places of the best continuations, the best first, or of drawn ones."""
        flat = scores.reshape(-1)
        kept = min(self.policy.kept, len(flat))
        if self.policy.sampler is not None:
            # The largest of scores with Gumbel noise are a draw without replacement.
            noise = self.policy.sampler.gumbel(size=len(flat)).astype(np.float32)
            with np.errstate(invalid="ignore"):
                flat = flat + noise
        likely = np.argpartition(-flat, kept - 1)[:kept]
        return likely[np.lexsort((likely, -flat[likely]))]

    def _end(self, parents: Array, tokens: Array, scores: Array, done: Array) -> None:
        """Let what just ended compete with what had ended before."""
        policy = self.policy
        grown = self._running.shape[1]
        lost = np.float32(0)
        if self._full():
            lost += _UNSEEN
        if not self._improvable:
            lost += _UNSEEN
        shares = scores / np.float32(grown**policy.length_penalty) + lost
        candidates = [
            _Ended((*self._running[parents[place], 1:].tolist(), int(tokens[place])), share, True)
            for place, share in enumerate(shares[: policy.beams])
            if done[place]
        ]
        merged = [*self._ended, *candidates]
        merged.sort(key=lambda ended: -ended.score)
        self._ended = merged[: policy.beams]

    def _full(self) -> bool:
        return self.policy.early_stopping is True and all(ended.counts for ended in self._ended)

    def _may_improve(self, length: int) -> bool:
        """Whether the best running sequence can still become better than one that ended."""
        policy = self.policy
        longest = policy.early_stopping == "never" and policy.length_penalty > 0
        grown = (policy.max_length if longest else length) - 1
        best = self._scores[0] / np.float32(grown**policy.length_penalty)
        worst = min(ended.score for ended in self._ended)
        bars = [worst if ended.counts else _UNSEEN for ended in self._ended]
        return any(bool(best > bar) for bar in bars)


def log_softmax(logits: Array) -> Array:
    """Return natural logarithms of probabilities over the last axis, float32."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(
        shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)), dtype=np.float32
    )
