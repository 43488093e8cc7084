"""Looking at an ONNX graph, and putting nodes into it: what every rewrite here needs; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias, TypedDict, Unpack

import onnx_ir as ir

MICROSOFT = "com.microsoft"
"""ONNX Runtime's own operators."""


Attributes: TypeAlias = Mapping[str, int | float | Sequence[int]]
"""Of a new node."""


class Facts(TypedDict, total=False):
    """What is not usual about a new node: `domain`, its output's `dtype` (float32) and `shape`."""

    domain: str
    dtype: ir.DataType
    shape: Iterable[int | str | ir.SymbolicDim | None] | None


def made_by(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """Return the node that makes `value` when it is one of these standard operators."""
    node = value.producer() if value is not None else None
    if node is None or node.domain or node.op_type not in op_types:
        return None
    return node


def constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """Return the tensor of a value that is a weight or a constant of the graph."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value


def scalar(value: ir.Value | None) -> float | None:
    """Return the number that a constant of one element holds."""
    tensor = constant(value)
    if tensor is None or tensor.size != 1:
        return None
    return float(tensor.numpy().reshape(-1)[0])


def rank(value: ir.Value | None) -> int | None:
    """Return how many axes a value has, where the exporter said so."""
    return None if value is None or value.shape is None else len(value.shape)


def size(value: ir.Value | None, axis: int) -> int | None:
    """Return the length of an axis that is the same in every batch."""
    if value is None or value.shape is None or not -len(value.shape) <= axis < len(value.shape):
        return None
    length = value.shape[axis]
    return length if isinstance(length, int) else None


def permutation(node: ir.Node | None) -> list[int] | None:
    """Return the order of axes that a Transpose makes."""
    if node is None or node.op_type != "Transpose" or "perm" not in node.attributes:
        return None
    return list(node.attributes["perm"].as_ints())


class Editor:
    """Puts nodes into a graph, each in front of another one, with names of its own.

    Args:
        graph: that is changed.
        prefix: of the names that it makes.
    """

    def __init__(self, graph: ir.Graph, prefix: str) -> None:
        self._graph = graph
        self._prefix = prefix
        self._made = 0

    def put(
        self,
        before: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Attributes | None = None,
        **facts: Unpack[Facts],
    ) -> ir.Value:
        """Insert a node of one output in front of `before` and return that output."""
        node = self._node(op_type, inputs, attributes, facts)
        self._graph.insert_before(before, node)
        return node.outputs[0]

    def put_after(
        self,
        after: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Attributes | None = None,
        **facts: Unpack[Facts],
    ) -> ir.Value:
        """Insert a node of one output right behind `after` and return that output."""
        node = self._node(op_type, inputs, attributes, facts)
        self._graph.insert_after(after, node)
        return node.outputs[0]

    def _node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Attributes | None,
        facts: Facts,
    ) -> ir.Node:
        self._made += 1
        shape = facts.get("shape")
        output = ir.Value(
            name=f"{self._prefix}_{self._made}",
            type=ir.TensorType(facts.get("dtype", ir.DataType.FLOAT)),
            shape=None if shape is None else ir.Shape(shape),
        )
        return ir.Node(
            facts.get("domain", ""),
            op_type,
            inputs,
            ir.convenience.convert_attributes(attributes or {}),
            outputs=[output],
            name=f"{self._prefix}_node_{self._made}",
        )

    def numbers(self, name: str, numbers: Sequence[int] | int) -> ir.Value:
        """Return the graph's constant of these whole numbers; each name is made once."""
        import numpy as np

        full = f"{self._prefix}_{name}"
        known = self._graph.initializers.get(full)
        if known is not None:
            return known
        array = np.array(numbers, dtype=np.int64)
        value = ir.Value(
            name=full,
            type=ir.TensorType(ir.DataType.INT64),
            shape=ir.Shape(array.shape),
            const_value=ir.tensor(array, name=full),
        )
        self._graph.register_initializer(value)
        return value


def replace(old: ir.Value, new: ir.Value) -> None:
    """Let everything that read `old` read `new`; an output of the graph keeps its name."""
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=False)
