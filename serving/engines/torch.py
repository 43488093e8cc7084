"""Torch on the CPU, for a version that has no valid export; torch is imported when it is opened."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from registry import load_torch_model, model_inputs, read_source
from serving.errors import InferenceError
from serving.tasks.protocol import Array


class TorchEngine:
    """A transformers model in eval mode, float32.

    Args:
        model: the model.
        input_names: what its forward takes and its tokenizer makes.
        output_names: what the task's postprocessing reads.
    """

    def __init__(
        self, model: Any, input_names: tuple[str, ...], output_names: tuple[str, ...]
    ) -> None:
        self._model: Any | None = model
        self._input_names = input_names
        self._output_names = output_names

    @property
    def name(self) -> str:
        """`torch`."""
        return "torch"

    @property
    def input_names(self) -> tuple[str, ...]:
        """Inputs that a batch must have."""
        return self._input_names

    @property
    def pads_freely(self) -> bool:
        """No: it computes on padding as on anything else."""
        return False

    def run(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        """Run a padded batch; entries that the model does not take are left out.

        Raises:
            InferenceError: an input is missing, the engine is closed, or the model failed.
        """
        import torch

        model = self._model
        if model is None:
            raise InferenceError("The engine is closed.")
        missing = [name for name in self._input_names if name not in batch]
        if missing:
            raise InferenceError(f"The batch lacks {', '.join(missing)}.")
        try:
            with torch.inference_mode():
                outputs = model(
                    **{name: torch.from_numpy(batch[name]) for name in self._input_names}
                )
                return {
                    name: np.asarray(outputs[name].to(torch.float32).numpy())
                    for name in self._output_names
                }
        # Torch raises IndexError, RuntimeError and more, as the model happens to be written.
        except Exception as error:
            raise InferenceError("Torch failed on this batch.") from error

    def close(self) -> None:
        """Let go of the model; its memory is freed when the last run has ended."""
        self._model = None


def open_torch(directory: Path, *, task: str, threads: int) -> TorchEngine:
    """Load the model in `directory` from safetensors; pickles and code are refused.

    Args:
        directory: a version as it was logged.
        task: its task.
        threads: cores that torch may use; a setting of the whole process.

    Raises:
        RegistryError: the directory is unsafe, broken or incomplete; see `read_source`.
        UnavailableError: torch or transformers is not installed.
    """
    source = read_source(directory, task)
    model, tokenizer = load_torch_model(source, threads=threads)
    return TorchEngine(model, model_inputs(source, model, tokenizer), source.task.outputs)
