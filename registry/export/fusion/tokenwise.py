"""Which nodes treat every token alike, and alone; pure."""

from __future__ import annotations

import onnx_ir as ir

from registry.export.fusion.parts import constant, rank

_ANY = frozenset(
    {
        *("Add", "Sub", "Mul", "Div", "Pow"),
        *("Erf", "Gelu", "Identity", "Neg", "Relu", "Sigmoid", "Sqrt", "Tanh"),
    }
)


def is_tokenwise(node: ir.Node) -> bool:
    """Whether a vector of the output depends on the same token's vectors of the inputs alone.

    Then the node gives the same for some of the tokens, and for tokens without their batch: every
    input is either (batch, tokens, size) like the output, or weights that know neither axis.
    """
    if node.domain or len(node.outputs) != 1 or rank(node.outputs[0]) != 3:
        return False
    inputs = [value for value in node.inputs if value is not None]
    if node.op_type == "MatMul":
        # Products of two things that vary are attention.
        return not _is_weight(inputs[0], 2) and _is_weight(inputs[1], 2, exactly=True)
    if node.op_type == "LayerNormalization":
        axis = node.attributes.get("axis")
        last = axis is None or axis.as_int() in (-1, 2)
        return last and _alike(inputs[:1], node) and all(_is_weight(one, 1) for one in inputs[1:])
    if node.op_type not in _ANY:
        return False
    varying = [value for value in inputs if not _is_weight(value, 1)]
    return bool(varying) and _alike(varying, node)


def varying_inputs(node: ir.Node) -> list[tuple[int, ir.Value]]:
    """Return position and value of the inputs of a tokenwise node that are no weights."""
    return [
        (index, value)
        for index, value in enumerate(node.inputs)
        if value is not None and not _is_weight(value, 2)
    ]


def _is_weight(value: ir.Value, axes: int, *, exactly: bool = False) -> bool:
    tensor = constant(value)
    if tensor is None:
        return False
    return len(tensor.shape) == axes if exactly else len(tensor.shape) <= axes


def _alike(values: list[ir.Value], node: ir.Node) -> bool:
    """Whether nothing is repeated along an axis: the values have the output's batch and tokens."""
    output = node.outputs[0].shape
    return output is not None and all(
        value.shape is not None and len(value.shape) == 3 and value.shape[:2] == output[:2]
        for value in values
    )
