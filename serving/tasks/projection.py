"""The dense layers behind pooling, applied as sentence-transformers does; numpy alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from registry import DenseLayer, read_tensors
from serving.errors import LoadError
from serving.tasks.protocol import Array

_ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "Identity": lambda values: values,
    "ReLU": lambda values: np.maximum(values, 0),
    "Sigmoid": lambda values: np.asarray(1 / (1 + np.exp(-values))),
    "Tanh": lambda values: np.asarray(np.tanh(values)),
}


@dataclass(frozen=True, slots=True)
class _Layer:
    weight: Array
    bias: Array | None
    activate: Callable[[Array], Array]
    residual: bool
    residual_weight: Array | None

    def apply(self, vector: Array) -> Array:
        made = self.weight @ vector
        made = self.activate(made if self.bias is None else made + self.bias)
        if not self.residual:
            return made
        kept = vector if self.residual_weight is None else self.residual_weight @ vector
        return np.asarray(made + kept)


@dataclass(frozen=True, slots=True)
class Projection:
    """Layers over an embedding; none of them leaves it as it is."""

    layers: tuple[_Layer, ...] = ()

    def apply(self, embedding: Array) -> Array:
        """Return the embedding, of another size perhaps, that the last layer makes."""
        for layer in self.layers:
            embedding = layer.apply(embedding)
        return embedding


def open_projection(directory: Path, layers: Sequence[DenseLayer]) -> Projection:
    """Read the weights of the layers.

    Raises:
        LoadError: they are not those of a chain of dense layers.
        RegistryError: a file is missing or broken.
    """
    opened = tuple(_open(directory, layer) for layer in layers)
    for one, following in itertools.pairwise(opened):
        if one.weight.shape[0] != following.weight.shape[1]:
            raise LoadError(
                f"A dense layer makes {one.weight.shape[0]} numbers, the one behind it takes "
                f"{following.weight.shape[1]}.",
                hint="Log the sentence-transformers model again.",
            )
    return Projection(opened)


def _open(directory: Path, layer: DenseLayer) -> _Layer:
    tensors = read_tensors(directory / layer.weights)
    weight = tensors.get("linear.weight")
    bias, residual = tensors.get("linear.bias"), tensors.get("residual.weight")
    fits = (
        weight is not None
        and weight.ndim == 2
        and (bias is None or bias.shape == weight.shape[:1])
        and (residual is None or residual.shape == weight.shape)
    )
    if weight is None or not fits:
        raise LoadError(
            f"{layer.weights} has no dense layer's weights.",
            hint="Log the sentence-transformers model again.",
        )
    return _Layer(weight, bias, _ACTIVATIONS[layer.activation], layer.residual, residual)
