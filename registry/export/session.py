"""The ONNX Runtime session: the same settings for the parity check and for serving."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import IntegrityError

if TYPE_CHECKING:
    import onnxruntime


SLOW_FUSIONS = ["SkipLayerNormFusion", "BiasGeluFusion"]
"""Of ONNX Runtime's own: on the CPU the fused operators take longer than their parts.

BERT's shapes lose 7 and 2 percent by them (`benchmarks.engines` has all steps together).
"""


def open_session(path: Path, *, threads: int) -> onnxruntime.InferenceSession:
    """Open our own export at `path` for the CPU.

    By path and not from bytes, which would hold the GIL while the graph is prepared. Threads do not
    spin: a spinning pool takes the cores that tokenising and HTTP need.

    Args:
        path: an ONNX file.
        threads: cores that one run may use.

    Raises:
        IntegrityError: ONNX Runtime cannot load the file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(
            str(path),
            sess_options=options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=SLOW_FUSIONS,
        )
    # ONNX Runtime's exceptions share no base class of their own.
    except Exception as error:
        raise IntegrityError(
            f"ONNX Runtime cannot load {path.name}: {error}",
            hint="Export again with --force.",
        ) from error
