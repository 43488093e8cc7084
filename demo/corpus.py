"""A small corpus of product reviews, made from a grammar, with three labels.

Made rather than downloaded: the demo needs no network. Reviews negate
("not reliable"), soften and change their mind ("… but …"), so that a bag of
words is not enough and a longer training shows in the metric.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

LABELS = ("negative", "neutral", "positive")

_ITEMS = (
    "headphones kettle backpack keyboard lamp camera blender jacket charger tent "
    "monitor drill bottle chair printer watch scooter speaker router toaster"
).split()
_PARTS = (
    "battery zip handle screen cable lid strap switch manual packaging finish sound "
    "colour weight support delivery price stitching button display"
).split()
_GOOD = (
    "excellent reliable sturdy comfortable quick bright beautiful precise quiet "
    "generous flawless handy"
).split()
_BAD = (
    "terrible flimsy slow noisy dull faulty uncomfortable overpriced misleading "
    "loose fragile useless"
).split()
_PLAIN = ("average ordinary acceptable standard usual plain fine unremarkable").split()
_OPENERS = ("", "", "honestly , ", "after a month , ", "for the money , ", "to my surprise , ")
_CLOSERS = ("", "", " .", " !", " . i use it every day .", " . that is all .")


_DISAGREEING = 0.03


@dataclass(frozen=True, slots=True)
class Review:
    """A text and the index of its label in `LABELS`."""

    text: str
    label: int


def make_corpus(count: int, seed: int) -> list[Review]:
    """Return `count` reviews, the same ones for the same seed, labels in equal shares."""
    rng = random.Random(seed)
    return [_review(rng, label=index % len(LABELS)) for index in range(count)]


def _review(rng: random.Random, label: int) -> Review:
    clause = _clause(rng, label)
    if rng.random() < 0.4:
        # What follows "but" decides; what precedes it points elsewhere.
        other = rng.choice([one for one in range(len(LABELS)) if one != label])
        clause = f"{_clause(rng, other)} but {clause}"
    if rng.random() < _DISAGREEING:
        label = rng.randrange(len(LABELS))
    return Review(f"{rng.choice(_OPENERS)}{clause}{rng.choice(_CLOSERS)}", label)


def _clause(rng: random.Random, label: int) -> str:
    subject = f"the {rng.choice(_PARTS)} of this {rng.choice(_ITEMS)}"
    if label == 1:
        return f"{subject} is {rng.choice(_PLAIN)}"
    straight, opposite = (_GOOD, _BAD) if label == 2 else (_BAD, _GOOD)
    if rng.random() < 0.35:
        return f"{subject} is not {rng.choice(opposite)}"
    emphasis = rng.choice(("", "very ", "really "))
    return f"{subject} is {emphasis}{rng.choice(straight)}"
