"""What the worker asks of a task: an item to a row, rows to a batch, outputs to an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Row:
    """One item, tokenised.

    Attributes:
        arrays: input name -> one-dimensional int64 array; all of the same length.
        length: true number of tokens, special tokens included; what padding and queues count.
        truncated: whether the item was cut to fit the model.
    """

    arrays: Mapping[str, Array]
    length: int
    truncated: bool


class Task(Protocol):
    """Turns items into model inputs and model outputs into answers; numpy in, plain values out.

    Every method may be called by several threads at once. An answer depends on its own row alone,
    never on the rows that share its batch.
    """

    @property
    def name(self) -> str:
        """Hugging Face's name of the task, such as `text-classification`."""

    def preprocess(self, item: object, parameters: Mapping[str, object]) -> Row:
        """Turn one item into a row.

        Raises:
            InvalidInputError: the item or a parameter is not what the task takes.
        """

    def collate(self, rows: Sequence[Row], input_names: Sequence[str]) -> dict[str, Array]:
        """Pad the rows to the longest; return arrays of shape (rows, tokens) by input name."""

    def postprocess(
        self, outputs: Mapping[str, Array], index: int, parameters: Mapping[str, object]
    ) -> object:
        """Return the answer for row `index` of the batch as plain values.

        Raises:
            InvalidInputError: a parameter is not what the task takes.
            NonFiniteOutputError: the model answered NaN or infinity.
        """
