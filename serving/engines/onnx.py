"""ONNX Runtime on the CPU; runs our own exports only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from registry import open_session
from serving.errors import InferenceError, LoadError
from serving.tasks.protocol import Array

MODEL_FILE = "model.onnx"
PACKED = "runport.packed"
"""Metadata of a graph that takes padding out (see `registry.export.fusion`)."""

_RECORD = "export.json"


class OnnxEngine:
    """One session, which any number of threads may run at once: there is one copy of the weights.

    Args:
        session: an open `onnxruntime.InferenceSession`.
    """

    def __init__(self, session: Any) -> None:
        self._session: Any | None = session
        self._input_names = tuple(value.name for value in session.get_inputs())
        self._output_names = tuple(value.name for value in session.get_outputs())
        self._packed = PACKED in session.get_modelmeta().custom_metadata_map

    @property
    def name(self) -> str:
        """`onnx`."""
        return "onnx"

    @property
    def input_names(self) -> tuple[str, ...]:
        """Inputs of the graph, in order."""
        return self._input_names

    @property
    def pads_freely(self) -> bool:
        """Whether the graph takes padding out itself, as it says."""
        return self._packed

    def run(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        """Run a padded batch; entries that the graph has no input for are left out.

        Raises:
            InferenceError: an input is missing, the engine is closed, or ONNX Runtime failed.
        """
        # Bound to a name, so that a close in another thread frees the session after this run.
        session = self._session
        if session is None:
            raise InferenceError("The engine is closed.")
        missing = [name for name in self._input_names if name not in batch]
        if missing:
            raise InferenceError(f"The batch lacks {', '.join(missing)}.")
        feeds = {name: batch[name] for name in self._input_names}
        try:
            outputs = session.run(None, feeds)
        # ONNX Runtime's exceptions share no base class of their own.
        except Exception as error:
            raise InferenceError("ONNX Runtime failed on this batch.") from error
        return {
            name: value.astype(np.float32, copy=False) if value.dtype.kind == "f" else value
            for name, value in zip(self._output_names, outputs, strict=True)
        }

    def close(self) -> None:
        """Let go of the session; its memory is freed when the last run has ended."""
        self._session = None


def open_onnx(directory: Path, *, threads: int) -> OnnxEngine:
    """Open the export in `directory`.

    Args:
        directory: an export of ours: `model.onnx` beside the `export.json` that vouches for it.
        threads: cores that one run may use.

    Raises:
        LoadError: the directory is no export.
        IntegrityError: ONNX Runtime cannot load the model.
    """
    for name in (MODEL_FILE, _RECORD):
        if not (directory / name).is_file():
            raise LoadError(
                f"{directory} is no export: it has no {name}.",
                hint="Make one with `registry export`; ONNX files of an artifact are not run.",
            )
    return OnnxEngine(open_session(directory / MODEL_FILE, threads=threads))
