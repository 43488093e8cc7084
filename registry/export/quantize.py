"""An fp32 ONNX export -> int8, dynamic or static; needs `onnx`, and no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from registry.errors import ExportError
from registry.export.evidence import MODEL_FILE

_WEIGHTED = ("MatMul", "Gemm")
Feeds = Mapping[str, Any]


def quantize_weights(source: Path, directory: Path) -> None:
    """Write the model with int8 weights; scales of activations are taken from each batch.

    Args:
        source: the graph of the fp32 export.
        directory: gets `model.onnx`.

    Raises:
        ExportError: the graph has nothing to quantise.
    """
    chosen = choose_nodes(source)
    quantize_dynamic(
        source,
        directory / MODEL_FILE,
        op_types_to_quantize=[*_WEIGHTED],
        nodes_to_quantize=chosen,
        per_channel=True,
        weight_type=QuantType.QInt8,
        use_external_data_format=_is_split(source),
        extra_options={"MatMulConstBOnly": True},
    )


def quantize_all(
    source: Path, directory: Path, calibration: Sequence[Feeds], *, spare_wide: bool = False
) -> None:
    """Write the model with int8 weights and activations; scales are measured once, beforehand.

    Args:
        source: the graph of the fp32 export.
        directory: gets `model.onnx`.
        calibration: batches to measure the range of activations on.
        spare_wide: whether products that make their input narrower stay in float: behind an
            activation function, a few of their inputs are far larger than all others, and one
            scale for all costs the most there.

    Raises:
        ExportError: the graph has nothing to quantise.
    """
    quantize_static(
        source,
        directory / MODEL_FILE,
        _Batches(calibration),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=[*_WEIGHTED],
        nodes_to_quantize=choose_nodes(source, spare_wide=spare_wide),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        use_external_data_format=_is_split(source),
        extra_options={"MatMulConstBOnly": True, "ActivationSymmetric": False},
    )


def choose_nodes(model_file: Path, *, spare_wide: bool = False) -> list[str]:
    """Return the names of the products with weights, but for those that make an output.

    The head is small and decides: it stays in float; with `spare_wide` others do too.

    Raises:
        ExportError: there is none.
    """
    graph = onnx.load(model_file, load_external_data=False).graph
    weights = {weight.name: tuple(weight.dims) for weight in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    heads = _makers_of_outputs(graph, makers)
    chosen = [
        node.name
        for node in graph.node
        if node.op_type in _WEIGHTED and node.input[1] in weights and node.name not in heads
        if not (spare_wide and _narrows(node, weights[node.input[1]]))
    ]
    if not chosen:
        raise ExportError(
            "The graph has no product with weights to quantise.", hint="Serve it in fp32."
        )
    return chosen


def _narrows(node: Any, shape: tuple[int, ...]) -> bool:
    """Return whether a product has more inputs than outputs."""
    turned = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return len(shape) == 2 and (shape[1] > shape[0] if turned else shape[0] > shape[1])


def _makers_of_outputs(graph: Any, makers: Mapping[str, Any]) -> set[str]:
    """Return the last product before each output."""
    heads = set()
    for output in graph.output:
        node = makers.get(output.name)
        while node is not None and node.op_type not in _WEIGHTED:
            node = makers.get(node.input[0]) if node.input else None
        if node is not None:
            heads.add(node.name)
    return heads


def _is_split(model_file: Path) -> bool:
    return model_file.with_name(f"{model_file.name}.data").exists()


class _Batches(CalibrationDataReader):  # type: ignore[misc]  # the package has no types
    """Batches one by one, as the calibrator asks for them."""

    def __init__(self, batches: Sequence[Feeds]) -> None:
        self._left: Iterator[Feeds] = iter(batches)

    def get_next(self) -> Feeds | None:
        """Return the next batch, None after the last."""
        return next(self._left, None)
