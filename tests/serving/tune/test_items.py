"""What candidates are asked: drawn by length, or read from samples."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from registry import IntegrityError, NotFoundError, UsageError
from serving.tasks import open_task
from serving.tune.items import TUNABLE, draw_lengths, gather_inputs
from tests.serving.conftest import TinyModel
from tests.serving.task_models import TASKS, TaskModels


def test_lengths_are_those_of_texts() -> None:
    lengths = sorted(draw_lengths(1000, 512))
    assert abs(statistics.median(lengths) - 35) <= 1
    assert abs(lengths[950] - 200) <= 8
    assert (lengths[0], lengths[-1]) == (3, 512)
    assert draw_lengths(1000, 512) == draw_lengths(1000, 512)
    assert max(draw_lengths(100, 64)) == 64


@pytest.mark.parametrize("task_name", TASKS)
def test_every_tunable_task_takes_its_drawn_inputs(task_name: str, task_models: TaskModels) -> None:
    assert task_name in TUNABLE
    model = task_models.model(task_name)
    task = open_task(model, task_name)
    inputs = gather_inputs(task, model, count=40, max_tokens=64, samples=None)
    lengths = [
        max(row.length for row in task.preprocess(item, inputs.parameters)) for item in inputs.items
    ]
    assert min(lengths) >= 3
    assert max(lengths) == 64
    # The tokenizer of the tests takes a hypothesis apart into letters.
    assert 15 <= statistics.median(lengths) <= (64 if task_name.startswith("zero") else 45)


def gather(model: TinyModel, samples: Path, task_name: str = "text-classification") -> list[object]:
    task = open_task(model.snapshot, task_name)
    inputs = gather_inputs(task, model.snapshot, count=4, max_tokens=64, samples=samples)
    return list(inputs.items)


def test_samples_are_taken_and_repeated(
    models: tuple[TinyModel, TinyModel], tmp_path: Path
) -> None:
    path = tmp_path / "samples.jsonl"
    lines = [{"text": "a good film"}, {"text": "bad", "text_pair": "good"}, "plain"]
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n", "utf-8")
    first, pair, plain, again = gather(models[0], path)
    assert (first, again, plain) == ("a good film", "a good film", "plain")
    assert pair == {"text": "bad", "text_pair": "good"}


def test_samples_of_other_tasks_take_their_form(task_models: TaskModels, tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text('{"text": "the film was good"}\n{"question": "who", "context": "the actor"}\n')
    model = task_models.model("question-answering")
    task = open_task(model, "question-answering")
    inputs = gather_inputs(task, model, count=2, max_tokens=64, samples=path)
    assert inputs.items[0]["context"] == "the film was good"
    assert inputs.items[1] == {"question": "who", "context": "the actor"}


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("", NotFoundError, "is empty"),
        ('{"text": "a"}\n{"text": ', UsageError, "Line 2"),
        ("[1, 2]", UsageError, "Line 1"),
        ('{"words": "a"}', UsageError, "Line 1"),
        (None, NotFoundError, "no file"),
    ],
)
def test_bad_samples_are_told(
    models: tuple[TinyModel, TinyModel],
    tmp_path: Path,
    content: str | None,
    error: type[Exception],
    message: str,
) -> None:
    path = tmp_path / "samples.jsonl"
    if content is not None:
        path.write_text(content, "utf-8")
    with pytest.raises(error, match=message):
        gather(models[0], path)


def test_a_broken_tokenizer_is_told(models: tuple[TinyModel, TinyModel], tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}", "utf-8")
    task = open_task(models[0].snapshot, "text-classification")
    with pytest.raises(IntegrityError, match="cannot be loaded"):
        gather_inputs(task, tmp_path, count=4, max_tokens=64, samples=None)
