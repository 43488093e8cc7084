"""From logits to scores, and the checks before that; numpy alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from serving.errors import LoadError, NonFiniteOutputError
from serving.tasks.protocol import Array


def finite(values: Array) -> Array:
    """Return the values as float32.

    Raises:
        NonFiniteOutputError: one is NaN or infinite.
    """
    if not np.isfinite(values).all():
        raise NonFiniteOutputError(
            "The model answered NaN or infinity.",
            hint="The weights are damaged or overflow; serve another version.",
        )
    return values.astype(np.float32, copy=False)


def finite_logits(logits: Array, labels: int) -> Array:
    """Return logits whose last axis is the labels', as float32.

    Raises:
        NonFiniteOutputError: one is NaN or infinite, or there are not as many as labels.
    """
    if logits.shape[-1] != labels:
        raise NonFiniteOutputError(f"The model has {logits.shape[-1]} outputs for {labels} labels.")
    return finite(logits)


def softmax(logits: Array) -> Array:
    """Return probabilities over the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def sigmoid(logits: Array) -> Array:
    """Return each logit's probability by itself."""
    # exp of a large negative logit overflows to infinity, and 1 / infinity is the right 0.
    with np.errstate(over="ignore"):
        return np.asarray(1.0 / (1.0 + np.exp(-logits)))


def label_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the labels of `config.json` by output.

    Raises:
        LoadError: they are not numbered 0, 1, 2, …
    """
    names = config.get("id2label")
    if names is None:
        # transformers leaves the map out when it has the default names; two is its default.
        count = config.get("num_labels", 2)
        return tuple(f"LABEL_{index}" for index in range(count if isinstance(count, int) else 2))
    wanted = [str(index) for index in range(len(names))] if isinstance(names, Mapping) else []
    if not wanted or set(wanted) != set(names):
        raise LoadError(
            "id2label in config.json does not number its labels 0, 1, 2, …",
            hint="Set `id2label` on the model and log it again.",
        )
    return tuple(str(names[index]) for index in wanted)
