"""Spelled-out attention -> ONNX Runtime's MultiHeadAttention.

The exporter writes scaled-dot-product attention as reshapes, transposes, two products, a sum and a
softmax. ONNX Runtime's own fusion knows the spelling of older exporters only. The mask goes in as
what is added to the products, so that it need not be understood.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from registry.export.fusion.parts import (
    MICROSOFT,
    Editor,
    made_by,
    permutation,
    rank,
    replace,
    scalar,
    size,
)

_BY_HEAD = [0, 2, 1, 3]


@dataclass(frozen=True, slots=True)
class Attention:
    """One attention as the exporter spells it.

    Attributes:
        query, key, value: shape (batch, tokens, heads x size), before they are cut into heads.
        bias: what is added to the scaled products, shape (batch or 1, heads or 1, tokens, tokens);
            None for nothing.
        heads: how many.
        scale: of the products.
        output: shape (batch, tokens, heads x size), put together again.
    """

    query: ir.Value
    key: ir.Value
    value: ir.Value
    bias: ir.Value | None
    heads: int
    scale: float
    output: ir.Value


def fuse_attention(graph: ir.Graph) -> int:
    """Replace every attention that is recognised; return how many were."""
    found = [match_attention(node) for node in graph if node.op_type == "Softmax"]
    editor = Editor(graph, "fused_attention")
    fused = [attention for attention in found if attention is not None]
    for attention in fused:
        _replace(editor, attention)
    return len(fused)


def match_attention(softmax: ir.Node) -> Attention | None:
    """Return the attention around a softmax, or None when it is spelled in another way."""
    axis = softmax.attributes.get("axis")
    if axis is not None and axis.as_int() not in (-1, 3):
        return None
    products, bias = _products(softmax.inputs[0])
    mixed = _only_use(softmax.outputs[0], "MatMul")
    if products is None or mixed is None or mixed.inputs[0] is not softmax.outputs[0]:
        return None
    left, right = _scaled(products.inputs[0]), _scaled(products.inputs[1])
    scale = left[1] * right[1]
    query = _from_heads(left[0])
    key = _from_heads(_untransposed(right[0]))
    value = _from_heads(mixed.inputs[1])
    output = _output(mixed.outputs[0])
    if query is None or key is None or value is None or output is None:
        return None
    heads = _heads(query[1], key[1], value[1])
    if heads is None:
        return None
    return Attention(query[0], key[0], value[0], bias, heads, scale, output)


def _products(value: ir.Value | None) -> tuple[ir.Node | None, ir.Value | None]:
    """Return the product of queries and keys, and what is added to it."""
    total = made_by(value, "Add")
    if total is None:
        return made_by(value, "MatMul"), None
    for index in (0, 1):
        product = made_by(total.inputs[index], "MatMul")
        bias = total.inputs[1 - index]
        if product is not None and rank(bias) == 4:
            return product, bias
    return None, None


def _scaled(value: ir.Value | None) -> tuple[ir.Value | None, float]:
    """Return what a value was before a number scaled it, and the factor."""
    node = made_by(value, "Mul", "Div")
    factor = scalar(node.inputs[1]) if node is not None else None
    if node is None or factor is None:
        return value, 1.0
    return node.inputs[0], factor if node.op_type == "Mul" else 1.0 / factor


def _untransposed(value: ir.Value | None) -> ir.Value | None:
    """Return keys with tokens before sizes: undo a swap of the last two axes.

    The exporter swaps them in three axes, between two reshapes that join batch and heads.
    """
    node = made_by(value, "Reshape", "Transpose")
    if node is None:
        return None
    if node.op_type == "Transpose":
        return node.inputs[0] if permutation(node) == [0, 1, 3, 2] else None
    swap = made_by(node.inputs[0], "Transpose")
    joined = made_by(swap.inputs[0], "Reshape") if permutation(swap) == [0, 2, 1] and swap else None
    return joined.inputs[0] if joined is not None else None


def _from_heads(value: ir.Value | None) -> tuple[ir.Value, ir.Value] | None:
    """Return what was cut into heads (three axes), and the cut (four axes)."""
    by_head = made_by(value, "Transpose")
    if by_head is None or permutation(by_head) != _BY_HEAD:
        return None
    cut = made_by(by_head.inputs[0], "Reshape")
    if cut is None or cut.inputs[0] is None or rank(cut.inputs[0]) != 3:
        return None
    return cut.inputs[0], cut.outputs[0]


def _output(mixed: ir.Value) -> ir.Value | None:
    """Return the heads put together again."""
    guard = _only_use(mixed, "Where")
    if guard is not None:
        # It answers 0 for a query that may look at nothing; no row is without a token.
        mixed = guard.outputs[0]
    by_token = _only_use(mixed, "Transpose")
    joined = _only_use(by_token.outputs[0], "Reshape") if by_token is not None else None
    if permutation(by_token) != _BY_HEAD or joined is None or rank(joined.outputs[0]) != 3:
        return None
    return joined.outputs[0]


def _only_use(value: ir.Value, op_type: str) -> ir.Node | None:
    uses = list(value.uses())
    node = uses[0].node if len(uses) == 1 and not value.is_graph_output() else None
    return node if node is not None and node.op_type == op_type and not node.domain else None


def _heads(*cuts: ir.Value) -> int | None:
    """Return the number of heads if all cuts have the same."""
    counts = {size(cut, 2) for cut in cuts}
    return counts.pop() if len(counts) == 1 else None


def _replace(editor: Editor, attention: Attention) -> None:
    joined = attention.output.producer()
    if joined is None:
        return
    inputs = [attention.query, attention.key, attention.value, None, None, attention.bias]
    fused = editor.put(
        joined,
        "MultiHeadAttention",
        inputs if attention.bias is not None else inputs[:3],
        {"num_heads": attention.heads, "scale": attention.scale},
        domain=MICROSOFT,
        shape=[*attention.output.shape] if attention.output.shape is not None else None,
    )
    replace(attention.output, fused)
