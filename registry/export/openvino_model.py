"""OpenVINO: our own IR from an export, and the compiled model, the same here and in serving."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import ExportError, IntegrityError, UnavailableError

if TYPE_CHECKING:
    import openvino

GRAPH_FILE = "openvino.xml"
WEIGHTS_FILE = "openvino.weights"
"""Not `.bin`, which elsewhere is a pickle and refused by its name."""

_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}


def write_ir(model_file: Path, directory: Path) -> None:
    """Read an ONNX file and write it as IR into `directory`.

    Raises:
        ExportError: OpenVINO has no operator for a node.
    """
    core = _core()
    try:
        model = core.read_model(str(model_file))
    # OpenVINO raises RuntimeError and its own kinds.
    except Exception as error:
        raise ExportError(
            f"OpenVINO cannot read the graph: {_first_line(error)}",
            hint="Serve it with --engine onnx.",
        ) from error
    import openvino

    openvino.serialize(model, str(directory / GRAPH_FILE), str(directory / WEIGHTS_FILE))


class OpenVinoModel:
    """A compiled model and the infer requests that share its weights.

    Args:
        compiled: for the CPU.
        requests: as many infer requests as runs at once.
    """

    def __init__(self, compiled: openvino.CompiledModel, requests: int) -> None:
        self.requests: tuple[Any, ...] = tuple(
            compiled.create_infer_request() for _ in range(requests)
        )
        self.input_names: tuple[str, ...] = tuple(value.get_any_name() for value in compiled.inputs)
        self._outputs = {value.get_any_name(): value for value in compiled.outputs}

    def run(self, request: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Run one of `requests`, which nobody else may use meanwhile; return outputs by name.

        The arrays are copied out of the request's memory.
        """
        found = request.infer(dict(batch), share_inputs=True, share_outputs=False)
        return {name: found[value] for name, value in self._outputs.items()}


def open_openvino(
    directory: Path, precision: str, *, threads: int, callers: int = 1
) -> OpenVinoModel:
    """Compile the IR in `directory` for the CPU.

    Args:
        directory: one of our exports.
        precision: as the export says: `fp32`, `bf16` or `int8`.
        threads: cores for one run.
        callers: runs at once; each has a stream with threads of its own.

    Raises:
        UnavailableError: OpenVINO is not installed.
        IntegrityError: OpenVINO cannot load the files.
    """
    core = _core()
    settings = {
        "NUM_STREAMS": str(callers),
        "INFERENCE_NUM_THREADS": threads * callers,
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        # Cores are shared with tokenising, HTTP and other models.
        "ENABLE_CPU_PINNING": False,
    }
    try:
        model = core.read_model(str(directory / GRAPH_FILE), str(directory / WEIGHTS_FILE))
        return OpenVinoModel(core.compile_model(model, "CPU", settings), callers)
    except Exception as error:
        raise IntegrityError(
            f"OpenVINO cannot load {GRAPH_FILE}: {_first_line(error)}",
            hint="Export again with --force.",
        ) from error


def _core() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise UnavailableError(
            "OpenVINO is not installed.", hint="pip install 'runport[openvino]'"
        ) from error
    import numpy as np

    # The binding looks numpy up when it meets the first array, and two threads that meet their
    # first one together wait for each other for ever (2026.4): let one be met here.
    _ = openvino.Tensor(np.zeros((1, 1), dtype=np.int64)).data
    return openvino.Core()


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:300] if text else 'no message'}"
