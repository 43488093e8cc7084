"""Graph work beyond the exporter's, for ONNX Runtime: what is computed once, and not for nothing.

Each step leaves a graph that it does not recognise as it was. Whatever they do, the result goes
through the parity gate like any other export. A change of what a step makes is a new
`store.GRAPH_REVISION`.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from registry.export.fusion.attention import fuse_attention
from registry.export.fusion.first_row import keep_first_row
from registry.export.fusion.packing import pack_tokens
from registry.export.fusion.parts import MICROSOFT

PACKED = "runport.packed"
"""Metadata of a graph that takes padding out itself: rows of unlike lengths may share a batch."""

STEPS = (
    ("attention", fuse_attention),
    ("first-row", keep_first_row),
    ("packing", pack_tokens),
)
"""Name and work of each step, in order; a step returns in how many places it changed a graph."""


def fuse(model: ir.Model) -> dict[str, int]:
    """Change the graph of `model`; return how many places each step found, of those that did."""
    applied = {name: found for name, step in STEPS if (found := apply(model, step))}
    if "packing" in applied:
        model.metadata_props[PACKED] = "1"
    return applied


def apply(model: ir.Model, step: Callable[[ir.Graph], int]) -> int:
    """Change the graph by one step, and drop what is not read any more; return what it found."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    found = step(model.graph)
    if found:
        # The next step asks who reads a value: nobody should who is not read.
        RemoveUnusedNodesPass()(model)
        if step is fuse_attention:
            model.opset_imports[MICROSOFT] = 1
    return found
