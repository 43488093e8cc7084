"""What the worker asks of an engine: run a padded batch; be closed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from serving.tasks.protocol import Array


class Engine(Protocol):
    """Runs batches of one loaded model."""

    @property
    def name(self) -> str:
        """`onnx` or `torch`."""

    @property
    def input_names(self) -> tuple[str, ...]:
        """Inputs that a batch must have, in the model's order."""

    @property
    def pads_freely(self) -> bool:
        """Whether rows of unlike lengths may share a batch at little cost."""

    def run(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        """Run a batch of arrays of shape (rows, tokens); may be called by several threads at once.

        Returns:
            Outputs by name; the first axis is the rows'. Floats are float32.

        Raises:
            InferenceError: an input is missing, the engine is closed, or the model failed.
        """

    def close(self) -> None:
        """Free the model; calling it twice does no harm."""
