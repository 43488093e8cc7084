"""The dense layers that sentence-transformers puts behind pooling, read from their folders."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from registry.errors import ExportError

Activation = Literal["Identity", "ReLU", "Sigmoid", "Tanh"]
_WEIGHTS = "model.safetensors"
_EMBEDDING = "sentence_embedding"


class DenseLayer(msgspec.Struct, frozen=True, kw_only=True):
    """A linear layer over the embedding, and what follows it.

    Attributes:
        weights: safetensors file, relative to the model's directory: `linear.weight` of shape
            (out, in), perhaps `linear.bias` and `residual.weight`.
        activation: applied to what the layer makes.
        residual: whether its input is added to that, by `residual.weight` if there is one.
    """

    weights: str
    activation: Activation
    residual: bool = False


def dense_layer(folder: str, config: Mapping[str, Any]) -> DenseLayer:
    """Return the layer in `folder` by its `config.json`.

    Raises:
        ExportError: it reads or writes something else than the embedding, or its activation is
            not known.
    """
    reads = config.get("module_input_name") or _EMBEDDING
    writes = config.get("module_output_name") or reads
    if (reads, writes) != (_EMBEDDING, _EMBEDDING):
        raise ExportError(
            f"The dense layer {folder} reads {reads!r} and writes {writes!r}.",
            hint="Served are those over the sentence's embedding.",
        )
    named = str(config.get("activation_function") or "Identity")
    activation = named.rpartition(".")[2]
    if activation not in get_args(Activation) or not named.startswith(("torch.nn.", activation)):
        raise ExportError(
            f"The activation {named!r} of the dense layer {folder} is not known.",
            hint=f"Known: {', '.join(get_args(Activation))} of torch.nn.",
        )
    return DenseLayer(
        weights=f"{folder}/{_WEIGHTS}",
        activation=activation,  # type: ignore[arg-type]
        residual=config.get("use_residual") is True,
    )


def copy_layers(
    layers: Sequence[DenseLayer], source: Path, directory: Path
) -> tuple[DenseLayer, ...]:
    """Copy the layers' weights into `directory`; return the layers as they are named there.

    Raises:
        ExportError: a layer has no safetensors.
        OSError: the disk refuses.
    """
    copied = []
    for number, layer in enumerate(layers):
        if not (source / layer.weights).is_file():
            raise ExportError(
                f"The dense layer has no {layer.weights}.",
                hint="Save the model with sentence-transformers 3 or later, as safetensors.",
            )
        name = f"sentence_dense_{number}.safetensors"
        shutil.copyfile(source / layer.weights, directory / name)
        copied.append(msgspec.structs.replace(layer, weights=name))
    return tuple(copied)
