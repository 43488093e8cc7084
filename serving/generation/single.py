"""One sequence that grows: its best next token, or a drawn one; numpy alone."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from serving.errors import NonFiniteOutputError
from serving.generation.protocol import Move
from serving.generation.rules import Rule
from serving.generation.warping import Warper, softmax
from serving.tasks.protocol import Array


@dataclass(slots=True)
class SingleSearch:
    """A search with one sequence; see `serving.generation.protocol.Search`.

    Args:
        first: the token that the sequence begins with.
        ends: tokens that end it.
        max_length: longest sequence, its first token included.
        rules, warpers: change logits before a token is chosen.
        sampler: draws tokens; None takes the best.
    """

    first: int
    ends: tuple[int, ...]
    max_length: int
    rules: tuple[Rule, ...] = ()
    warpers: tuple[Warper, ...] = ()
    sampler: np.random.Generator | None = None
    _tokens: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._tokens = [self.first]

    def advance(self, logits: Array) -> Move:
        """Choose the next token.

        Raises:
            NonFiniteOutputError: the model answered NaN.
        """
        if np.isnan(logits).any():
            raise NonFiniteOutputError("The model answered NaN.")
        scores = np.array(logits, dtype=np.float32)
        for rule in self.rules:
            rule(np.array([self._tokens]), scores)
        for warper in self.warpers:
            warper(scores)
        token = self._choose(scores)
        self._tokens.append(token)
        if token in self.ends or len(self._tokens) >= self.max_length:
            return Move(())
        return Move((token,))

    @property
    def sequences(self) -> list[tuple[int, ...]]:
        """The tokens of the sequence, without its first."""
        return [tuple(self._tokens[1:])]

    def _choose(self, scores: Array) -> int:
        if self.sampler is None:
            return int(scores[0].argmax())
        return int(self.sampler.choice(scores.shape[-1], p=softmax(scores)[0]))
