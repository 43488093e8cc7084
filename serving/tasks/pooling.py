"""Token vectors -> one embedding, as sentence-transformers does it; pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from serving.tasks.protocol import Array

POOLINGS = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")


def pool(states: Array, modes: Sequence[str], *, prompt_tokens: int = 0) -> Array:
    """Return the vectors of all modes, joined.

    Args:
        states: shape (tokens, size), special tokens included, padding not.
        modes: of `POOLINGS`.
        prompt_tokens: how many at the beginning are left out.
    """
    kept = states[prompt_tokens:] if prompt_tokens < len(states) else states
    first = len(states) - len(kept) + 1
    return np.concatenate([_pool(kept, mode, first) for mode in modes])


def unit(vector: Array) -> Array:
    """Return the vector scaled to length 1; one of zeros stays."""
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12))


def _pool(states: Array, mode: str, first: int) -> Array:
    if mode == "cls":
        return np.asarray(states[0])
    if mode == "lasttoken":
        return np.asarray(states[-1])
    if mode == "max":
        return np.asarray(states.max(axis=0))
    if mode == "weightedmean":
        weights = np.arange(first, first + len(states), dtype=np.float32)
        return np.asarray(weights @ states / weights.sum())
    size = len(states) if mode == "mean" else np.sqrt(len(states), dtype=np.float32)
    return np.asarray(states.sum(axis=0) / size)
