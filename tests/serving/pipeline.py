"""A small, real implementation of the task and engine seams, exact and without a model file.

An item is a text; a row holds the characters between two bars; the engine answers per row a number
that depends on every character and its place, so that a mixed-up or padded-in row shows.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import numpy as np

from serving.errors import InvalidInputError
from serving.tasks.protocol import Array, Outputs, Row, Samples

POISON = "☠"
"""A character on which the engine fails, with the whole batch."""
UNPOSTABLE = "☣"
"""A character on which postprocessing fails."""
PANIC = "☢"
"""A character on which tokenising raises what is no Exception, as native panics do."""
BAR = "|"
"""Separates the rows of an item."""


class Panic(BaseException):
    """Like `pyo3_runtime.PanicException`."""


def reference(text: str) -> int:
    """What the engine answers for `text`, computed another way."""
    return sum(
        number * (place + 1) * ord(character)
        for number, part in enumerate(parts(text), start=1)
        for place, character in enumerate(part)
    )


def parts(text: str) -> list[str]:
    """What stands between the bars, empty parts left out."""
    return [part for part in text.split(BAR) if part]


class CharacterTask:
    """Texts to rows of code points."""

    @property
    def name(self) -> str:
        return "characters"

    @property
    def samples(self) -> Samples:
        return Samples(["sample", "sample|of|rows"])

    def preprocess(self, item: object, parameters: Mapping[str, object]) -> list[Row]:
        if not isinstance(item, str) or not parts(item):
            raise InvalidInputError("An input is no text.")
        if PANIC in item:
            raise Panic("index out of bounds")
        return [self._row(number, part) for number, part in enumerate(parts(item), start=1)]

    def _row(self, number: int, part: str) -> Row:
        ids = np.array([ord(character) for character in part], dtype=np.int64)
        arrays = {"ids": ids, "mask": np.ones_like(ids)}
        return Row(arrays, length=len(ids), truncated=False, facts=number)

    def collate(self, rows: Sequence[Row], input_names: Sequence[str]) -> dict[str, Array]:
        longest = max(row.length for row in rows)
        batch = {}
        for name in input_names:
            # Padding with a large number: a mask that is not applied would show.
            array = np.full((len(rows), longest), 0 if name == "mask" else 10**6, dtype=np.int64)
            for index, row in enumerate(rows):
                array[index, : row.length] = row.arrays[name]
            batch[name] = array
        return batch

    def split(self, rows: Sequence[Row], outputs: Mapping[str, Array]) -> list[Outputs]:
        return [
            {name: values[index] for name, values in outputs.items()} for index in range(len(rows))
        ]

    def postprocess(
        self, rows: Sequence[Row], outputs: Sequence[Outputs], parameters: Mapping[str, object]
    ) -> object:
        if any(one["broken"] for one in outputs):
            raise ValueError("no such label")
        total = sum(row.facts * int(one["sum"]) for row, one in zip(rows, outputs, strict=True))
        return total + int(str(parameters.get("add", 0)))


class SumEngine:
    """Weighted sums of code points; can be held, and counts its runs.

    Args:
        held: runs wait until `release`.
        pads_freely: what it says of padding.
    """

    input_names = ("ids", "mask")
    name = "sum"

    def __init__(self, *, held: bool = False, pads_freely: bool = False) -> None:
        self.pads_freely = pads_freely
        self.batches: list[tuple[int, int]] = []
        self.running = 0
        self.most_running = 0
        self.began = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._gate = threading.Event()
        if not held:
            self._gate.set()

    def release(self) -> None:
        self._gate.set()

    def run(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        with self._lock:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            self.batches.append(batch["ids"].shape)  # type: ignore[arg-type]
        self.began.release()
        try:
            if not self._gate.wait(30):
                raise TimeoutError("never released")
            if (batch["ids"] == ord(POISON)).any():
                raise RuntimeError("index out of range in the embedding")
            weights = np.arange(1, batch["ids"].shape[1] + 1)
            return {
                "sum": (batch["ids"] * batch["mask"] * weights).sum(axis=1),
                "broken": (batch["ids"] == ord(UNPOSTABLE)).any(axis=1),
            }
        finally:
            with self._lock:
                self.running -= 1

    def close(self) -> None:
        self.release()
