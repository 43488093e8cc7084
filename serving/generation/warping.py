"""What sampling does to scores before a token is drawn; numpy alone.

As `transformers.generate`, in its order, for the usual settings. A warper changes scores, float32
of shape (sequences, vocabulary), in place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from serving.tasks.protocol import Array

Warper: TypeAlias = Callable[[Array], None]

_NEVER = -np.inf


def build_warpers(settings: Mapping[str, Any], *, least: int) -> tuple[Warper, ...]:
    """Return the warpers that these settings ask for, in the order in which they apply.

    Args:
        settings: by transformers' names: `temperature`, `top_k`, `top_p`, `min_p`, `typical_p`.
        least: tokens that every warper leaves possible.
    """
    warpers: list[Warper] = []
    temperature = settings.get("temperature")
    if temperature is not None and temperature != 1.0:
        warpers.append(_cool(temperature))
    top_k = settings.get("top_k", 50)
    if top_k:
        warpers.append(_keep_best(max(top_k, least)))
    top_p = settings.get("top_p")
    if top_p is not None and top_p < 1.0:
        warpers.append(_keep_likely(top_p, least))
    min_p = settings.get("min_p")
    if min_p is not None:
        warpers.append(_keep_near(min_p, least))
    typical_p = settings.get("typical_p")
    if typical_p is not None and typical_p < 1.0:
        warpers.append(_keep_typical(typical_p, least))
    return tuple(warpers)


def softmax(scores: Array) -> Array:
    """Return probabilities over the last axis, float64."""
    shifted = np.exp(scores.astype(np.float64) - scores.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def _cool(temperature: float) -> Warper:
    def warp(scores: Array) -> None:
        scores /= np.float32(temperature)

    return warp


def _keep_best(count: int) -> Warper:
    def warp(scores: Array) -> None:
        if count < scores.shape[-1]:
            bar = np.partition(scores, -count, axis=-1)[:, -count, None]
            scores[scores < bar] = _NEVER

    return warp


def _keep_likely(share: float, least: int) -> Warper:
    def warp(scores: Array) -> None:
        order = np.argsort(scores, axis=-1, kind="stable")
        likely = softmax(np.take_along_axis(scores, order, axis=-1))
        dropped = np.cumsum(likely, axis=-1) <= 1 - share
        dropped[:, -least:] = False
        for row, places, out in zip(scores, order, dropped, strict=True):
            row[places[out]] = _NEVER

    return warp


def _keep_typical(mass: float, least: int) -> Warper:
    """Keep the tokens that surprise about as much as is to be expected, up to a probability."""

    def warp(scores: Array) -> None:
        likely = softmax(scores)
        with np.errstate(divide="ignore", invalid="ignore"):
            surprise = -np.log(likely)
            expected = np.nansum(surprise * likely, axis=-1, keepdims=True)
        order = np.argsort(np.abs(surprise - expected), axis=-1, kind="stable")
        covered = np.cumsum(np.take_along_axis(likely, order, axis=-1), axis=-1)
        kept = np.maximum((covered < mass).sum(axis=-1) + 1, least)
        for row, places, count in zip(scores, order, kept, strict=True):
            row[places[count:]] = _NEVER

    return warp


def _keep_near(share: float, least: int) -> Warper:
    def warp(scores: Array) -> None:
        likely = softmax(scores)
        dropped = likely < share * likely.max(axis=-1, keepdims=True)
        kept = np.argsort(-likely, axis=-1, kind="stable")[:, :least]
        np.put_along_axis(dropped, kept, False, axis=-1)
        scores[dropped] = _NEVER

    return warp
