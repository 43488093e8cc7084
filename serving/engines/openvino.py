"""OpenVINO on the CPU; runs our own exports only."""

from __future__ import annotations

import queue
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from registry import OpenVinoModel, open_openvino
from serving.errors import InferenceError, LoadError
from serving.tasks.protocol import Array

GRAPH_FILE = "openvino.xml"
_RECORD = "export.json"


class OpenVinoEngine:
    """One compiled model and as many infer requests as may run at once: one copy of the weights.

    A request belongs to one caller while it runs; who finds none free waits for the next.

    Args:
        model: compiled, with its infer requests.
        vocabulary: ids that `input_ids` may have; None where there are none. OpenVINO itself reads
            any other id as zeros, and would answer.
    """

    def __init__(self, model: OpenVinoModel, vocabulary: int | None = None) -> None:
        self._model: OpenVinoModel | None = model
        self._vocabulary = vocabulary
        self._input_names = model.input_names
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for request in model.requests:
            self._free.put(request)

    @property
    def name(self) -> str:
        """`openvino`."""
        return "openvino"

    @property
    def input_names(self) -> tuple[str, ...]:
        """Inputs of the graph, in order."""
        return self._input_names

    @property
    def pads_freely(self) -> bool:
        """No: it computes on padding as on anything else."""
        return False

    def run(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        """Run a padded batch; entries that the graph has no input for are left out.

        Raises:
            InferenceError: an input is missing or outside the vocabulary, the engine is closed, or
                OpenVINO failed.
        """
        # Bound to a name, so that a close in another thread frees the model after this run.
        model = self._model
        if model is None:
            raise InferenceError("The engine is closed.")
        missing = [name for name in self._input_names if name not in batch]
        if missing:
            raise InferenceError(f"The batch lacks {', '.join(missing)}.")
        self._check_vocabulary(batch)
        feeds = {name: batch[name] for name in self._input_names}
        request = self._free.get()
        try:
            outputs = model.run(request, feeds)
        # OpenVINO raises RuntimeError and its own kinds.
        except Exception as error:
            raise InferenceError("OpenVINO failed on this batch.") from error
        finally:
            self._free.put(request)
        return {
            name: value.astype(np.float32, copy=False) if value.dtype.kind == "f" else value
            for name, value in outputs.items()
        }

    def close(self) -> None:
        """Let go of the model; its memory is freed when the last run has ended."""
        self._model = None
        while True:
            try:
                self._free.get_nowait()
            except queue.Empty:
                return

    def _check_vocabulary(self, batch: Mapping[str, Array]) -> None:
        ids = batch.get("input_ids")
        if self._vocabulary is None or ids is None or not ids.size:
            return
        if ids.min() < 0 or ids.max() >= self._vocabulary:
            raise InferenceError("The batch holds a token outside the model's vocabulary.")


def open_openvino_engine(directory: Path, *, threads: int, callers: int) -> OpenVinoEngine:
    """Open the export in `directory`.

    Args:
        directory: an export of ours: `openvino.xml` beside the `export.json` that vouches for it.
        threads: cores that one run may use.
        callers: runs at once; each gets a stream of its own.

    Raises:
        LoadError: the directory is no export for OpenVINO.
        UnavailableError: OpenVINO is not installed.
        IntegrityError: OpenVINO cannot load the model.
    """
    for name in (GRAPH_FILE, _RECORD):
        if not (directory / name).is_file():
            raise LoadError(
                f"{directory} is no export for OpenVINO: it has no {name}.",
                hint="Make one with `registry export --engine openvino`.",
            )
    precision = _text(directory / _RECORD, "precision", "fp32")
    model = open_openvino(directory, precision, threads=threads, callers=callers)
    vocabulary = _read(directory / "config.json").get("vocab_size")
    return OpenVinoEngine(model, vocabulary if isinstance(vocabulary, int) else None)


def _text(path: Path, key: str, default: str) -> str:
    value = _read(path).get(key, default)
    return value if isinstance(value, str) else default


def _read(path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LoadError(f"{path.name} cannot be read: {error}", hint="Export again.") from error
