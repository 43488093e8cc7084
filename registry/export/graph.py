"""A transformers model -> an ONNX graph with sizes that vary; needs torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from registry.errors import ExportError
from registry.export.tasks import TaskSpec

if TYPE_CHECKING:
    import onnx_ir

MAX_BATCH_ROWS = 65_536
"""Upper bound of the batch size in the graph's shape constraints."""

_EXAMPLE_ROWS = 2
_EXAMPLE_TOKENS = 16
# Neither 0 nor 1: torch.export bakes those two sizes into the graph.


def export_graph(
    model: Any, spec: TaskSpec, input_names: tuple[str, ...], *, max_tokens: int
) -> onnx_ir.Model:
    """Trace the model with batch and sequence of any size.

    Args:
        model: in eval mode, float32.
        spec: its task.
        input_names: the inputs that the graph shall have.
        max_tokens: longest sequence.

    Raises:
        ExportError: the exporter cannot trace or convert this model.
    """
    import torch

    sizes = {
        "batch": torch.export.Dim("batch", min=1, max=MAX_BATCH_ROWS),
        "sequence": torch.export.Dim("sequence", min=1, max=max_tokens),
    }
    axes = {axis: sizes[name] for axis, name in spec.dynamic_axes}
    shape = (_EXAMPLE_ROWS, min(_EXAMPLE_TOKENS, max_tokens))
    examples = {name: torch.ones(shape, dtype=torch.int64) for name in input_names}
    if "token_type_ids" in examples:
        examples["token_type_ids"].zero_()
    graph = trace(model, examples, dict.fromkeys(input_names, axes))
    keep_outputs(graph, spec.outputs)
    return graph


def trace(model: Any, examples: dict[str, Any], shapes: dict[str, Any]) -> onnx_ir.Model:
    """Return the graph of a model, or of a module around one.

    Args:
        model: in eval mode, float32.
        examples: its keyword arguments; no size that varies is 0 or 1.
        shapes: of each argument, axis number -> `torch.export.Dim` of the axes that vary.

    Raises:
        ExportError: the exporter cannot trace or convert this model.
    """
    from transformers.exporters import OnnxConfig, OnnxExporter

    try:
        exported = OnnxExporter().export(model, examples, OnnxConfig(dynamic_shapes=shapes))
    # torch.export and the converter raise dozens of types.
    except Exception as error:
        first = (str(error).strip().splitlines() or ["no message"])[0][:300]
        raise ExportError(
            f"The exporter failed on {type(model).__name__}: {type(error).__name__}: {first}",
            hint="Serve it with torch (`registry serve --engine torch`).",
        ) from error
    graph: onnx_ir.Model = exported.program
    return graph


def keep_outputs(graph: onnx_ir.Model, names: tuple[str, ...]) -> None:
    """Drop all other outputs, and what only they need."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    produced = {str(value.name): value for value in graph.graph.outputs}
    lacking = [name for name in names if name not in produced]
    if lacking:
        raise ExportError(f"The exported graph has no output {', '.join(lacking)}.")
    if list(produced) != list(names):
        graph.graph.outputs[:] = [produced[name] for name in names]
        RemoveUnusedNodesPass()(graph)
