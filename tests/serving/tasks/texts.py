"""Varied texts: what people and fuzzers send."""

from __future__ import annotations

import random

from tests.models import WORDS

EDGES = (
    "",
    " ",
    "\n\t",
    "good",
    "GOOD",
    "zzyzx",
    "über café naïve",
    "u\u0308ber cafe\u0301",
    "東京 привет",
    "👩‍👩‍👧‍👦 🎬",
    "\u202egood\u202c",
    "a\x00b\x07c",
    "�",
    "[CLS] [SEP] [MASK] [PAD]",
    "[UNK] good [SEP] bad",
    'good-film,bad/plot;it\'s "fine"!?',
    "9" * 40,
    "good " * 61,
    "good " * 62,
    "good " * 63,
    "good " * 64,
    "bad " * 500,
    "x" * 300,
    "́" * 20,
    "<b>great</b> &amp; slow",
)


def varied_texts(count: int = 220, seed: int = 0) -> list[str]:
    """Return the edges, then random sentences up to three times the model's length."""
    rng = random.Random(seed)
    texts = list(EDGES)
    while len(texts) < count:
        words = rng.choices(WORDS, k=min(int(rng.lognormvariate(2.5, 1.0)) + 1, 200))
        texts.append(rng.choice([" ", " ", ", ", "\n"]).join(words))
    return texts


def varied_pairs(count: int = 60, seed: int = 1) -> list[dict[str, str]]:
    """Return pairs of which either side may be empty or too long."""
    texts = varied_texts(2 * count, seed)
    random.Random(seed).shuffle(texts)
    return [
        {"text": one, "text_pair": other}
        for one, other in zip(texts[:count], texts[count : 2 * count], strict=True)
    ]
