"""One text that grows: its best next token or a drawn one, stop strings, pieces for a stream."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from serving.errors import NonFiniteOutputError
from serving.generation.growing_text import GrowingText
from serving.generation.protocol import Move, Piece
from serving.generation.rules import Rule
from serving.generation.warping import Warper, softmax
from serving.tasks.protocol import Array

Reason = Literal["length", "eos_token", "stop_sequence"]


@dataclass(slots=True)
class TextSearch:
    """A search with one sequence; see `serving.generation.protocol.Search`.

    Args:
        prompt: tokens of the prompt.
        text: of the tokens after it.
        max_new_tokens: how many at most.
        ends: tokens that end the text.
        stops: strings that end the text; it keeps them, and nothing behind them.
        special: tokens that are not text.
        rules, warpers: change logits before a token is chosen.
        sampler: draws tokens; None takes the best.
        tells: whether each token is wanted, with its text and its probability.
    """

    prompt: tuple[int, ...]
    text: GrowingText
    max_new_tokens: int
    ends: tuple[int, ...] = ()
    stops: tuple[str, ...] = ()
    special: Collection[int] = frozenset()
    rules: tuple[Rule, ...] = ()
    warpers: tuple[Warper, ...] = ()
    sampler: np.random.Generator | None = None
    tells: bool = False
    reason: Reason | None = None
    pieces: list[Piece] = field(default_factory=list)
    _stopped: str | None = None

    def advance(self, logits: Array) -> Move:
        """Choose the next token.

        Raises:
            NonFiniteOutputError: the model answered NaN.
        """
        row = logits[:1]
        # The sum is NaN if any is, and takes no second array.
        if np.isnan(row.sum()):
            raise NonFiniteOutputError("The model answered NaN.")
        likely = row.astype(np.float64) if self.tells else None
        token = self._choose(row)
        grown = self._grow(token)
        if likely is not None:
            self.pieces.append(Piece(token, grown, _logprob(likely[0], token), self._hides(token)))
        pieces = self.pieces[-1:]
        return Move((), (), pieces) if self.reason else Move((token,), (0,), pieces)

    @property
    def answer(self) -> str:
        """The text after the prompt."""
        return self.text.whole() if self._stopped is None else self._stopped

    def _hides(self, token: int) -> bool:
        return token in self.special

    def _choose(self, scores: Array) -> int:
        if self.rules:
            sequence = np.array([(*self.prompt, *self.text.ids)])
            for rule in self.rules:
                rule(sequence, scores)
        if self.sampler is None:
            return int(scores[0].argmax())
        for warper in self.warpers:
            warper(scores)
        return int(self.sampler.choice(scores.shape[-1], p=softmax(scores)[0]))

    def _grow(self, token: int) -> str:
        """Take the token, note whether it is the last, and return the text that it adds."""
        if not self.tells and not self.stops:
            self.text.ids.append(token)
            self.reason = self._over(token)
            return ""
        before = self.text.told
        grown = self.text.add(token)
        self.reason = self._over(token)
        if self.reason:
            grown += self.text.rest()
        end = self._stop_in(before, before + grown)
        if end is not None:
            self.reason = "stop_sequence"
            self._stopped = (before + grown)[:end]
            return self._stopped[len(before) :]
        return grown

    def _over(self, token: int) -> Reason | None:
        if token in self.ends:
            return "eos_token"
        return "length" if len(self.text.ids) >= self.max_new_tokens else None

    def _stop_in(self, before: str, now: str) -> int | None:
        """Return where the first stop string ends that the last token completed."""
        found = []
        for stop in self.stops:
            start = now.find(stop, max(0, len(before) - len(stop) + 1))
            if start >= 0:
                found.append(start + len(stop))
        return min(found, default=None)


def _logprob(logits: Array, token: int) -> float:
    most = logits.max()
    return float(logits[token] - most - np.log(np.exp(logits - most).sum()))
