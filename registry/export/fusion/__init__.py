"""Graph work beyond the exporter's, for ONNX Runtime: what is computed once, and not for nothing.

Each step leaves a graph that it does not recognise as it was. Whatever they do, the result goes
through the parity gate like any other export. A change of what a step makes is a new
`store.GRAPH_REVISION`.
"""

from __future__ import annotations

import onnx_ir as ir

from registry.export.fusion.attention import fuse_attention
from registry.export.fusion.first_row import keep_first_row
from registry.export.fusion.packing import pack_tokens
from registry.export.fusion.parts import MICROSOFT

PACKED = "runport.packed"
"""Metadata of a graph that takes padding out itself: rows of unlike lengths may share a batch."""

_STEPS = (
    ("attention", fuse_attention),
    ("first-row", keep_first_row),
    ("packing", pack_tokens),
)


def fuse(model: ir.Model) -> dict[str, int]:
    """Change the graph of `model`; return how many places each step found, of those that did."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    applied = {name: found for name, step in _STEPS if (found := step(model.graph))}
    if "attention" in applied:
        model.opset_imports[MICROSOFT] = 1
    if "packing" in applied:
        model.metadata_props[PACKED] = "1"
    if applied:
        RemoveUnusedNodesPass()(model)
    return applied
