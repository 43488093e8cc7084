"""Answers are those of transformers' pipeline on the same directory, alone or in any batch."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry import Export
from serving.errors import InvalidInputError, LoadError, NonFiniteOutputError
from serving.tasks import open_task
from tests.exports import export_directory
from tests.models import tiny_bert
from tests.serving.tasks.served import Served, open_served
from tests.serving.tasks.texts import varied_pairs, varied_texts

WITHOUT_TORCH = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "transformers", "onnx", "onnxscript", "safetensors"}:
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
from pathlib import Path
from serving.engines.onnx import open_onnx
from serving.tasks import open_task
directory = Path(sys.argv[1])
task, engine = open_task(directory, None), open_onnx(directory, threads=1)
rows = task.preprocess({"text": "good", "text_pair": "bad"}, {})
outputs = task.split(rows, engine.run(task.collate(rows, engine.input_names)))
print(task.postprocess(rows, outputs, {"top_k": None}))
"""


def served(model: Path, export: Export) -> Served:
    from transformers import pipeline

    return open_served(export, pipeline("text-classification", model=str(model)))


@pytest.fixture(scope="module")
def single(tiny_model: Path, tiny_export: Export) -> Iterator[Served]:
    one = served(tiny_model, tiny_export)
    yield one
    one.engine.close()


@pytest.fixture(scope="module", params=["multi_label_classification", "regression"])
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Served:
    folder = tmp_path_factory.mktemp(request.param)
    labels = 4 if request.param.startswith("multi") else 1
    model = tiny_bert(folder / "model", labels=labels, seed=5, problem_type=request.param)
    return served(model, export_directory(model, folder / "exports"))


def check_same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert [one["label"] for one in found] == [one["label"] for one in expected]
    np.testing.assert_allclose(
        [one["score"] for one in found], [one["score"] for one in expected], atol=1e-4, rtol=0
    )
    assert all(type(one["score"]) is float for one in found)


def check_pipeline(model: Served, items: Sequence[Any], **parameters: Any) -> None:
    expected = [
        model.reference(item, truncation=True, **({"top_k": 1} | parameters)) for item in items
    ]
    found = [answer for item in items for answer in model.answers([item], **parameters)]
    for one, reference in zip(found, expected, strict=True):
        check_same(one, reference)
    for start in range(0, len(items), 7):
        batch = model.answers(items[start : start + 7], **parameters)
        for one, reference in zip(batch, expected[start : start + 7], strict=True):
            check_same(one, reference)


@pytest.mark.parametrize("top_k", [1, None])
def test_single_label_equals_the_pipeline(single: Served, top_k: int | None) -> None:
    check_pipeline(single, varied_texts(), top_k=top_k)


def test_pairs_equal_the_pipeline(single: Served) -> None:
    check_pipeline(single, varied_pairs(), top_k=None)


def test_other_problem_types_equal_the_pipeline(other: Served) -> None:
    check_pipeline(other, varied_texts(), top_k=None)


@pytest.mark.parametrize("function", ["sigmoid", "softmax", "none"])
def test_a_named_function_equals_the_pipeline(single: Served, function: str) -> None:
    check_pipeline(single, varied_texts(30), top_k=2, function_to_apply=function)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    first=st.text(max_size=300),
    others=st.lists(st.text(max_size=300), min_size=1, max_size=7),
    place=st.integers(0, 7),
)
def test_an_answer_does_not_depend_on_its_batch_mates(
    single: Served, first: str, others: list[str], place: int
) -> None:
    (alone,) = single.answers([first], top_k=None)
    place = min(place, len(others))
    together = single.answers([*others[:place], first, *others[place:]], top_k=None)[place]
    assert [one["label"] for one in together] == [one["label"] for one in alone]
    np.testing.assert_allclose(
        [one["score"] for one in together], [one["score"] for one in alone], atol=1e-5, rtol=0
    )


def test_nothing_heavy_is_needed_to_serve(tiny_export: Export, single: Served) -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH, str(tiny_export.path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    expected = single.reference({"text": "good", "text_pair": "bad"}, top_k=None)
    assert [one["label"] for one in expected] == [
        label for label in run.stdout.split("'") if label in {"good", "fine", "bad"}
    ]


def test_rows_know_their_length(single: Served) -> None:
    (row,) = single.task.preprocess("good film", {})
    assert (row.length, row.truncated) == (4, False)
    assert list(row.arrays) == ["input_ids", "attention_mask", "token_type_ids"]
    assert all(array.shape == (4,) and array.dtype == np.int64 for array in row.arrays.values())
    assert single.task.preprocess("good " * 62, {})[0].truncated is False
    (cut,) = single.task.preprocess("good " * 63, {})
    assert (cut.length, cut.truncated) == (64, True)


def test_only_inputs_of_the_model_are_collated(single: Served) -> None:
    rows = [single.task.preprocess(text, {})[0] for text in ("good", "good bad fine")]
    batch = single.task.collate(rows, ("attention_mask", "input_ids"))
    assert list(batch) == ["attention_mask", "input_ids"]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch["input_ids"][0, 3:].tolist() == [0, 0]


@pytest.mark.parametrize(
    "item",
    [None, 1, b"good", ["good"], {}, {"text": 1}, {"text_pair": "a"}, {"text": "a", "x": "b"}],
)
def test_an_item_that_is_no_text(single: Served, item: object) -> None:
    with pytest.raises(InvalidInputError):
        single.task.preprocess(item, {})


@pytest.mark.parametrize(
    "parameters",
    [
        {"top_k": 0},
        {"top_k": -1},
        {"top_k": "two"},
        {"top_k": True},
        {"top_k": 1.5},
        {"function_to_apply": "tanh"},
        {"function_to_apply": 1},
    ],
)
def test_parameters_that_cannot_be_used(single: Served, parameters: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError):
        single.task.preprocess("good", parameters)


def test_a_lone_surrogate_is_the_items_own_error(single: Served) -> None:
    with pytest.raises(InvalidInputError):
        single.task.preprocess("good \ud800", {})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_becomes_an_error_of_its_row_alone(single: Served, value: float) -> None:
    logits = np.array([[1, 2, 3], [1, value, 3]], dtype=np.float32)
    rows = [single.task.preprocess(text, {})[0] for text in ("good", "bad")]
    good, bad = single.task.split(rows, {"logits": logits})
    answer = single.task.postprocess(rows[:1], [good], {})
    assert isinstance(answer, list)
    assert answer[0]["label"] == "good"
    with pytest.raises(NonFiniteOutputError):
        single.task.postprocess(rows[1:], [bad], {})


def test_equal_scores_keep_the_order_of_the_labels(single: Served) -> None:
    answer = single.task.postprocess([], [{"logits": np.ones(3, np.float32)}], {"top_k": None})
    assert isinstance(answer, list)
    assert [one["label"] for one in answer] == ["bad", "fine", "good"]


def test_extreme_logits_make_no_warning(other: Served) -> None:
    count = len(other.reference.model.config.id2label)
    logits = np.full(count, -3e4, dtype=np.float32)
    other.task.postprocess([], [{"logits": logits}], {"function_to_apply": "sigmoid"})


@pytest.fixture
def directory(tiny_model: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_model, tmp_path / "model")


def test_a_directory_as_it_was_logged_opens_too(directory: Path) -> None:
    assert open_task(directory, None).name == "text-classification"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", None),
        ("config.json", "{"),
        ("config.json", "[]"),
        ("config.json", '{"architectures": ["BertForNextSentencePrediction"]}'),
        ("tokenizer.json", None),
        ("tokenizer.json", "{}"),
        ("tokenizer_config.json", "{"),
    ],
)
def test_a_broken_directory_does_not_open(directory: Path, name: str, content: str | None) -> None:
    if content is None:
        (directory / name).unlink()
    else:
        (directory / name).write_text(content)
    with pytest.raises(LoadError):
        open_task(directory, None)


def test_unknown_task(directory: Path) -> None:
    with pytest.raises(LoadError, match="fortune"):
        open_task(directory, "fortune-telling")


def test_default_labels_when_the_config_names_none(directory: Path) -> None:
    path = directory / "config.json"
    config = json.loads(path.read_text())
    del config["id2label"], config["label2id"]
    path.write_text(json.dumps(config))
    answer = open_task(directory, None).postprocess(
        [], [{"logits": np.array([0, 1], np.float32)}], {"top_k": None}
    )
    assert isinstance(answer, list)
    assert [one["label"] for one in answer] == ["LABEL_1", "LABEL_0"]
