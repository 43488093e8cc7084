"""A task and an engine on a real export, driven as the worker drives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def check_same(
    served: Served, items: Sequence[Any], expected: Sequence[Any], **parameters: Any
) -> None:
    """Compare answers with the reference's, each alone and in batches of seven."""
    for item, reference in zip(items, expected, strict=True):
        check_close(served.answer(item, **parameters), reference)
    for start in range(0, len(items), 7):
        found = served.answers(items[start : start + 7], **parameters)
        for one, reference in zip(found, expected[start : start + 7], strict=True):
            check_close(one, reference)


def check_close(found: Any, expected: Any, *, atol: float = 1e-4) -> None:
    """Compare two plain answers: numbers within `atol`, all else exactly, types included."""
    if isinstance(expected, Mapping):
        assert set(found) == set(expected)
        for key, value in expected.items():
            check_close(found[key], value, atol=atol)
    elif isinstance(expected, list | tuple):
        assert isinstance(found, list)
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            check_close(one, other, atol=atol)
    elif isinstance(expected, int | str | bool) or expected is None:
        assert found == expected
    else:
        assert type(found) is float
        assert abs(found - float(expected)) <= atol
