"""A decoder without a model, and a search for it: each token is one more than the last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from serving.errors import InferenceError
from serving.generation.protocol import Job, Move, Piece, Prompt
from serving.tasks.protocol import Array

VOCABULARY = 32
POISON = 13


@dataclass
class Counting:
    """A decoder without a model: the token after n is n + 1. Token 13 makes it fail."""

    max_sequences: int = 4
    cache_tokens: int = 100
    context_tokens: int = 30
    name: str = "counting"
    opened: dict[int, tuple[int, ...]] = field(default_factory=dict)
    steps: list[int] = field(default_factory=list)
    numbers: int = 0

    def cost(self, prompt: Prompt, max_new_tokens: int) -> int:
        return len(prompt.ids) + max_new_tokens

    def open(self, prompt: Prompt) -> int:
        self.numbers += 1
        self.opened[self.numbers] = prompt.ids
        assert len(self.opened) <= self.max_sequences
        return self.numbers

    def prefill(self, sequences: Sequence[int]) -> list[Array | None]:
        return [self.after(self.opened[number]) for number in sequences]

    def step(self, sequences: Sequence[int], tokens: Sequence[int]) -> Array:
        self.steps.append(len(sequences))
        grown = [(*self.opened[n], token) for n, token in zip(sequences, tokens, strict=True)]
        logits = np.stack([self.after(ids) for ids in grown])
        self.opened |= dict(zip(sequences, grown, strict=True))
        return logits

    def fork(self, parents: Sequence[int]) -> list[int]:
        made: list[int] = []
        for parent in parents:
            made.append(parent if parent not in made else self.open(Prompt(self.opened[parent])))
        return made

    def close(self, sequence: int) -> None:
        self.opened.pop(sequence)

    def shutdown(self) -> None:
        self.opened.clear()

    def after(self, ids: tuple[int, ...]) -> Array:
        if POISON in ids:
            raise InferenceError("unlucky")
        logits = np.zeros(VOCABULARY, dtype=np.float32)
        logits[ids[-1] + 1] = 1
        return logits


@dataclass
class Best:
    """A search that takes the best token `length` times, in `width` equal sequences."""

    length: int
    width: int = 1
    found: list[int] = field(default_factory=list)

    def advance(self, logits: Array) -> Move:
        assert len(logits) == (self.width if self.found else 1)
        token = int(logits[0].argmax())
        first = not self.found
        self.found.append(token)
        if len(self.found) == self.length:
            return Move((), pieces=[Piece(token, str(token), 0.0, False)])
        parents = (0,) * self.width if first else range(self.width)
        return Move((token,) * self.width, parents, [Piece(token, str(token), 0.0, False)])


def job(first: int, length: int, width: int = 1) -> tuple[Job, Best]:
    search = Best(length, width)
    return Job(Prompt((first,)), search, width, length), search
