"""The loop: who begins when, what is told, and that a failure stays with its job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from serving.errors import InferenceError
from serving.generation.loop import GenerationLoop
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


def run(loop: GenerationLoop) -> dict[object, BaseException | None]:
    ended = {}
    while not loop.idle:
        loop.admit()
        ended |= {one.key: one.error for one in loop.turn()}
    return ended


def test_all_grow_together_and_leave_alone() -> None:
    decoder = Counting()
    loop = GenerationLoop(decoder, max_jobs=8)
    made = {"a": job(0, 3), "b": job(5, 1), "c": job(20, 5)}
    for key, (one, _) in made.items():
        loop.add(key, one)
    assert run(loop) == dict.fromkeys(made)
    assert [search.found for _, search in made.values()] == [
        [1, 2, 3],
        [6],
        [21, 22, 23, 24, 25],
    ]
    assert decoder.steps == [2, 2, 1, 1]
    assert not decoder.opened


def test_a_failure_stays_with_its_job() -> None:
    decoder = Counting()
    loop = GenerationLoop(decoder, max_jobs=8)
    made = {"prompt": job(POISON, 3), "later": job(POISON - 2, 6), "well": job(0, 6)}
    for key, (one, _) in made.items():
        loop.add(key, one)
    ended = run(loop)
    assert isinstance(ended["prompt"], InferenceError)
    assert isinstance(ended["later"], InferenceError)
    assert ended["well"] is None
    assert made["well"][1].found == [1, 2, 3, 4, 5, 6]
    assert not decoder.opened


def test_beams_fork_and_are_closed() -> None:
    decoder = Counting()
    loop = GenerationLoop(decoder, max_jobs=8)
    one, search = job(3, 4, width=3)
    loop.add("beams", one)
    assert run(loop) == {"beams": None}
    assert search.found == [4, 5, 6, 7]
    assert decoder.steps == [3, 3, 3]
    assert not decoder.opened


def test_who_comes_first_begins_first_and_only_where_there_is_room() -> None:
    decoder = Counting(max_sequences=4)
    loop = GenerationLoop(decoder, max_jobs=2)
    for key, width in (("wide", 3), ("wider", 4), ("small", 1)):
        loop.add(key, job(0, 2, width)[0])
    loop.admit()
    # `small` would fit, but it came later: nobody starves.
    assert loop.growing == ["wide"]
    loop.turn()
    loop.admit()
    assert loop.growing == ["wider"]
    assert run(loop) == {"wider": None, "small": None}
    assert not loop.fits(job(0, 2, width=5)[0])
    assert not loop.fits(job(0, 40)[0])
    assert not GenerationLoop(Counting(cache_tokens=5), max_jobs=1).fits(job(0, 6)[0])


def test_what_nobody_waits_for_is_dropped() -> None:
    decoder = Counting()
    told: list[tuple[object, str]] = []
    loop = GenerationLoop(
        decoder,
        max_jobs=2,
        tell=lambda key, pieces: told.extend((key, piece.text) for piece in pieces),
    )
    for key in ("gone", "stays", "waits"):
        loop.add(key, job(0, 4)[0])
    loop.admit()
    loop.turn()
    loop.drop("gone")
    loop.drop("waits")
    assert run(loop) == {"stays": None}
    assert [text for key, text in told if key == "stays"] == ["1", "2", "3", "4"]
    assert ("waits", "1") not in told
    assert not decoder.opened
