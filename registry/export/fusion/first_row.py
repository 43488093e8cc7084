"""Where only the first token's vector is asked of the last layer, nothing else is computed there.

A classifier reads one token of the last layer. So everything that treats tokens alike needs to see
that token alone, and an attention needs its query alone: what a token finds does not depend on what
the others ask. Exact; it saves most of the last layer.
"""

from __future__ import annotations

import onnx_ir as ir

from registry.export.fusion.parts import Editor, made_by, rank, scalar
from registry.export.fusion.tokenwise import is_tokenwise, varying_inputs

_QUERY, _BIAS = 0, 5


def keep_first_row(graph: ir.Graph) -> int:
    """Cut tokens that nobody reads; return how many attentions lost their other queries.

    Finds attention only where it was fused before.
    """
    first: set[ir.Value] = set()
    cut: list[ir.Node] = []
    for node in reversed(graph):
        if (_is_attention(node) or is_tokenwise(node)) and _read_first_only(node.outputs[0], first):
            first.add(node.outputs[0])
            cut.append(node)
    attentions = sum(_is_attention(node) for node in cut)
    if attentions:
        cutter = _Cutter(graph, first)
        for node in reversed(cut):
            cutter.cut(node)
    return attentions


def _is_attention(node: ir.Node) -> bool:
    return node.op_type == "MultiHeadAttention"


def _read_first_only(value: ir.Value, first: set[ir.Value]) -> bool:
    uses = list(value.uses())
    if not uses or value.is_graph_output():
        return False
    return all(_reads_first(use.node, use.idx, first) for use in uses)


def _reads_first(node: ir.Node, index: int, first: set[ir.Value]) -> bool:
    if made_by(node.outputs[0], "Gather") is not None:
        axis = node.attributes.get("axis")
        chosen = axis is not None and axis.as_int() == 1 and scalar(node.inputs[1]) == 0
        return index == 0 and chosen and rank(node.inputs[0]) == 3
    if node.outputs[0] not in first:
        return False
    return index == _QUERY or not _is_attention(node)


class _Cutter:
    """Gives nodes the first token of what they read.

    Args:
        graph: that is changed.
        first: values that will have the first token alone.
    """

    def __init__(self, graph: ir.Graph, first: set[ir.Value]) -> None:
        self._editor = Editor(graph, "first_row")
        self._first = first
        self._sliced: dict[ir.Value, ir.Value] = {}

    def cut(self, node: ir.Node) -> None:
        """Let a node, whose output only the first token is read of, read no others."""
        if _is_attention(node):
            reads = [(_QUERY, node.inputs[_QUERY], 1)]
            if len(node.inputs) > _BIAS:
                reads.append((_BIAS, node.inputs[_BIAS], 2))
        else:
            reads = [(index, value, 1) for index, value in varying_inputs(node)]
        for index, value, axis in reads:
            if value is not None and value not in self._first:
                node.replace_input_with(index, self._slice(value, node, axis))
        output = node.outputs[0]
        if output.shape is not None:
            output.shape = ir.Shape([output.shape[0], 1, output.shape[2]])

    def _slice(self, value: ir.Value, before: ir.Node, axis: int) -> ir.Value:
        if value not in self._sliced:
            shape = None if value.shape is None else list(value.shape)
            if shape is not None:
                shape[axis] = 1
            ends = [self._editor.numbers(f"number_{number}", [number]) for number in (0, 1, axis)]
            self._sliced[value] = self._editor.put(before, "Slice", [value, *ends], shape=shape)
        return self._sliced[value]
