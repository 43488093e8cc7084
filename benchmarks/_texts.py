"""Texts and token rows of mixed lengths: log-normal, median 35 tokens, 95th percentile 200."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np

MEDIAN_TOKENS = 35
SPREAD = math.log(200 / MEDIAN_TOKENS) / 1.645  # 1.645: a normal's 95th percentile
_SHORTEST, _LONGEST = 4, 512


def draw_lengths(count: int, seed: int, longest: int = _LONGEST) -> list[int]:
    """Return lengths in tokens, special tokens included, in the order of arrival."""
    rng = random.Random(seed)
    drawn = (round(rng.lognormvariate(math.log(MEDIAN_TOKENS), SPREAD)) for _ in range(count))
    return [min(max(length, _SHORTEST), longest) for length in drawn]


def draw_ids(lengths: list[int], vocabulary: int, seed: int) -> list[list[int]]:
    """Return token ids of these lengths, none of them special."""
    rng = np.random.default_rng(seed)
    return [rng.integers(min(1000, vocabulary // 2), vocabulary, size).tolist() for size in lengths]


def draw_texts(tokenizer_file: Path, lengths: list[int], seed: int) -> list[str]:
    """Return texts of about these lengths in tokens, of whole words of the vocabulary."""
    import tokenizers

    vocabulary = tokenizers.Tokenizer.from_file(str(tokenizer_file)).get_vocab()
    words = sorted(word for word in vocabulary if word.isalpha() and word.isascii())
    rng = random.Random(seed)
    return [" ".join(rng.choices(words, k=max(1, length - 2))) for length in lengths]
