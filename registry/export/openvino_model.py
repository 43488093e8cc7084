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


def compile_openvino(
    directory: Path, precision: str, *, threads: int, streams: int = 1
) -> openvino.CompiledModel:
    """Compile the IR in `directory` for the CPU.

    Args:
        directory: one of our exports.
        precision: as the export says: `fp32`, `bf16` or `int8`.
        threads: cores for one run.
        streams: runs at once; each has its own threads.

    Raises:
        UnavailableError: OpenVINO is not installed.
        IntegrityError: OpenVINO cannot load the files.
    """
    core = _core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
        "NUM_STREAMS": str(streams),
        "INFERENCE_NUM_THREADS": threads * streams,
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        # Cores are shared with tokenising, HTTP and other models.
        "ENABLE_CPU_PINNING": False,
    }
    try:
        model = core.read_model(str(directory / GRAPH_FILE), str(directory / WEIGHTS_FILE))
        return core.compile_model(model, "CPU", settings)
    except Exception as error:
        raise IntegrityError(
            f"OpenVINO cannot load {GRAPH_FILE}: {_first_line(error)}",
            hint="Export again with --force.",
        ) from error


def run_request(request: Any, compiled: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    """Run one infer request; return outputs by name, copied out of the request's memory.

    Args:
        request: of `compiled`; nobody else may use it meanwhile.
        compiled: names the outputs.
        batch: arrays by input name.
    """
    found = request.infer(dict(batch), share_inputs=True, share_outputs=False)
    return {output.get_any_name(): found[output] for output in compiled.outputs}


def _core() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise UnavailableError(
            "OpenVINO is not installed.", hint="pip install 'runport[openvino]'"
        ) from error
    return openvino.Core()


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:300] if text else 'no message'}"
