"""Padding is taken out of the rows before everything that treats tokens alike.

Rows of different lengths are filled up to share a batch, and stock graphs then compute on what was
filled up. Here the tokens of all rows lie one after the other, (all tokens, size) instead of
(batch, tokens, size), wherever a node treats every token alike, which is nearly all of the work;
only attention gets its rows back. A batch then costs what its tokens cost.
"""

from __future__ import annotations

import onnx_ir as ir

from registry.export.fusion.parts import Editor, size
from registry.export.fusion.tokenwise import is_tokenwise, varying_inputs

_MASK = "attention_mask"


def pack_tokens(graph: ir.Graph) -> int:
    """Take padding out; return how many products with weights do no more work on it."""
    mask = next((value for value in graph.inputs if value.name == _MASK), None)
    if mask is None or mask.shape is None or len(mask.shape) != 2:
        return 0
    rows = tuple(mask.shape)
    nodes = [
        node
        for node in graph
        if is_tokenwise(node) and all(_has_rows(value, rows) for value in _values(node))
    ]
    products = sum(node.op_type == "MatMul" for node in nodes)
    if products:
        _Packer(graph, mask, {node.outputs[0] for node in nodes}).run(nodes)
    return products


def _values(node: ir.Node) -> list[ir.Value]:
    return [node.outputs[0], *(value for _, value in varying_inputs(node))]


def _has_rows(value: ir.Value, rows: tuple[int | ir.SymbolicDim, ...]) -> bool:
    """Whether a value is (batch, tokens, size) with a size that is known."""
    shape = value.shape
    if shape is None or len(shape) != 3 or not isinstance(shape[2], int):
        return False
    return tuple(shape[:2]) == rows


class _Packer:
    """Takes padding out of some values of a graph, and gives it back to those who need rows.

    Args:
        graph: that is changed.
        mask: its input that says what is no padding, shape (batch, tokens).
        packed: values that will have no padding.
    """

    def __init__(self, graph: ir.Graph, mask: ir.Value, packed: set[ir.Value]) -> None:
        self._graph = graph
        self._mask = mask
        self._packed = packed
        self._rows = tuple(mask.shape or ())
        self._editor = Editor(graph, "packed")
        self._made: dict[ir.Value, ir.Value] = {}

    def run(self, nodes: list[ir.Node]) -> None:
        """Change what these nodes read, then what reads them."""
        kept, places = self._places(self._graph[0])
        for node in nodes:
            for index, value in varying_inputs(node):
                if value not in self._packed:
                    node.replace_input_with(index, self._pack(value, node, kept))
        inside = set(nodes)
        for node in nodes:
            self._unpack(node.outputs[0], inside, places)

    def _places(self, before: ir.Node) -> tuple[ir.Value, ir.Value]:
        """Put in what finds tokens: places of those kept, and for each place its token.

        The first of each row is always kept, so that each place has a token of its own row: the
        last one kept before it.
        """
        editor, whole, truth = self._editor, ir.DataType.INT64, ir.DataType.BOOL
        flat = editor.numbers("flat", [-1])
        zero, one = editor.numbers("zero", 0), editor.numbers("one", 1)
        real = editor.put(before, "Cast", [self._mask], {"to": int(truth)}, dtype=truth)
        sizes = editor.put(before, "Shape", [self._mask], dtype=whole)
        length = editor.put(before, "Gather", [sizes, one], {"axis": 0}, dtype=whole)
        numbers = editor.put(before, "Range", [zero, length, one], dtype=whole)
        first = editor.put(before, "Equal", [numbers, zero], dtype=truth)
        chosen = editor.put(before, "Or", [real, first], dtype=truth)
        chosen = editor.put(before, "Reshape", [chosen, flat], dtype=truth)
        found = editor.put(before, "NonZero", [chosen], dtype=whole)
        kept = editor.put(before, "Reshape", [found, flat], dtype=whole)
        counted = editor.put(before, "Cast", [chosen], {"to": int(whole)}, dtype=whole)
        upto = editor.put(before, "CumSum", [counted, zero], dtype=whole)
        token = editor.put(before, "Sub", [upto, one], dtype=whole)
        return kept, editor.put(before, "Reshape", [token, sizes], dtype=whole)

    def _pack(self, value: ir.Value, before: ir.Node, kept: ir.Value) -> ir.Value:
        if value not in self._made:
            width = size(value, 2) or -1
            shape = self._editor.numbers(f"width_{width}", [-1, width])
            flat = self._editor.put(before, "Reshape", [value, shape], shape=[None, width])
            self._made[value] = self._editor.put(
                before, "Gather", [flat, kept], {"axis": 0}, shape=["packed_tokens", width]
            )
        return self._made[value]

    def _unpack(self, value: ir.Value, inside: set[ir.Node], places: ir.Value) -> None:
        """Let nodes that need rows, and the graph's caller, read rows."""
        producer, old = value.producer(), value.shape
        if producer is None or old is None:
            return
        outside = [use for use in value.uses() if use.node not in inside]
        value.shape = ir.Shape(["packed_tokens", old[2]])
        if not outside and not value.is_graph_output():
            return
        rows = self._editor.put_after(producer, "Gather", [value, places], {"axis": 0}, shape=old)
        for use in outside:
            use.node.replace_input_with(use.idx, rows)
        if value.is_graph_output():
            self._hand_out(value, rows)

    def _hand_out(self, value: ir.Value, rows: ir.Value) -> None:
        """Make `rows` the output of the graph that `value` was, under its name."""
        name = value.name
        value.name = f"{name}_packed"
        rows.name = name
        self._graph.outputs[:] = [rows if one is value else one for one in self._graph.outputs]
