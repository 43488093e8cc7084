"""What the worker asks of a task: an item to rows, rows to a batch, outputs to an answer.

The worker batches the rows of all items together and each by itself: a row of a long text may run
with rows of other requests, before or after its sisters. A task that answers in one pass over its
inputs fits here; one that generates token by token needs a loop over the engine, and will be a
protocol of its own beside this one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

Outputs: TypeAlias = Mapping[str, Array]
"""What the model answered for one row: output name -> array without the batch's axis."""


@dataclass(frozen=True, slots=True)
class Row:
    """One input of the model: an item, or a part of one.

    Attributes:
        arrays: input name -> array without the batch's axis; of texts int64, all of one length.
        length: what queues count: true number of tokens of a text, special tokens included; frames
            of a waveform, patches of an image.
        truncated: whether the item was cut to fit the model.
        facts: what the task needs of the row to make an answer, such as character offsets; the
            task's own, never looked into and never sent anywhere.
        kind: rows of unlike kinds never share a batch; where nothing is padded, the shape.
    """

    arrays: Mapping[str, Array]
    length: int
    truncated: bool
    facts: Any = None
    kind: int = 0


@dataclass(frozen=True, slots=True)
class Samples:
    """Inputs that every model of a task must be able to answer; a fresh worker is warmed with them.

    Attributes:
        items: inputs of several lengths.
        parameters: to go with them.
    """

    items: Sequence[Any]
    parameters: Mapping[str, Any] = field(default_factory=dict)


class Task(Protocol):
    """Turns items into model inputs and model outputs into answers; numpy in, plain values out.

    Every method may be called by several threads at once. An answer depends on its own rows alone,
    never on the rows that share their batches.
    """

    @property
    def name(self) -> str:
        """Hugging Face's name of the task, such as `text-classification`."""

    @property
    def samples(self) -> Samples:
        """Inputs to warm a worker with."""

    def preprocess(self, item: object, parameters: Mapping[str, object]) -> Sequence[Row]:
        """Turn one item into its rows, at least one.

        Raises:
            InvalidInputError: the item or a parameter is not what the task takes.
        """

    def collate(self, rows: Sequence[Row], input_names: Sequence[str]) -> dict[str, Array]:
        """Pad the rows to the longest; return arrays of shape (rows, tokens) by input name."""

    def split(self, rows: Sequence[Row], outputs: Mapping[str, Array]) -> list[Outputs]:
        """Cut the outputs of a batch into those of its rows, without what padding added.

        They are kept until the last row of their item has run, so that a task returns what its
        answer needs and no more.
        """

    def postprocess(
        self, rows: Sequence[Row], outputs: Sequence[Outputs], parameters: Mapping[str, object]
    ) -> object:
        """Return the answer to the item of these rows as plain values.

        Args:
            rows: as `preprocess` made them.
            outputs: as `split` made them, one per row.
            parameters: as `preprocess` had them.

        Raises:
            InvalidInputError: a parameter is not what the task takes.
            NonFiniteOutputError: the model answered NaN or infinity.
        """
