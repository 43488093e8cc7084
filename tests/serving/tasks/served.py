"""A task and an engine on a real export, driven as the worker drives them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from registry import Export
from serving.engines.onnx import open_onnx
from serving.engines.protocol import Engine
from serving.tasks import Task, open_task


@dataclass(frozen=True)
class Served:
    """A model as it is served, and the reference that its answers are compared with."""

    task: Task
    engine: Engine
    reference: Any

    def answers(self, items: Sequence[object], **parameters: object) -> list[Any]:
        """Answer the items, all their rows in one batch."""
        made = [self.task.preprocess(item, parameters) for item in items]
        rows = [row for one in made for row in one]
        outputs = self.engine.run(self.task.collate(rows, self.engine.input_names))
        parts = iter(self.task.split(rows, outputs))
        return [self.task.postprocess(one, [next(parts) for _ in one], parameters) for one in made]

    def answer(self, item: object, **parameters: object) -> Any:
        """Answer one item, alone."""
        return self.answers([item], **parameters)[0]


def open_served(export: Export, reference: Any) -> Served:
    """Open the export with one thread."""
    return Served(open_task(export.path, None), open_onnx(export.path, threads=1), reference)
