"""Answers are those of transformers' last pipeline for questions, alone or in any batch."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.errors import InvalidInputError, NonFiniteOutputError
from tests.serving.task_models import TaskModels
from tests.serving.tasks.question_reference import QuestionReference
from tests.serving.tasks.served import Served, check_close, check_same, open_served
from tests.serving.tasks.texts import varied_texts


@pytest.fixture(scope="module")
def reader(task_models: TaskModels) -> Served:
    export = task_models.export("question-answering")
    assert export.output_names == ("start_logits", "end_logits")
    assert export.report.label_agreement == export.report.batched_label_agreement == 1.0
    return open_served(export, QuestionReference(task_models.model("question-answering")))


def questions(count: int = 220, seed: int = 0) -> list[dict[str, str]]:
    contexts = [text for text in varied_texts(count + 10, seed) if text]
    asked = ["what is good?", "who", "why was the film so long", "東京?", "[MASK]"]
    return [
        {"question": asked[index % len(asked)], "context": context}
        for index, context in enumerate(contexts[:count])
    ]


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"top_k": 4},
        {"top_k": 3, "align_to_words": False, "max_answer_len": 4},
        {"top_k": 2, "handle_impossible_answer": True},
    ],
)
def test_answers_equal_the_pipeline(reader: Served, parameters: dict[str, Any]) -> None:
    items = questions() if parameters.get("top_k") in (None, 4) else questions(60, seed=3)
    expected = [reader.reference(item, **parameters) for item in items]
    check_same(reader, items, expected, **parameters)


@pytest.mark.parametrize(("size", "stride"), [(64, 0), (40, 10), (24, 12), (64, 31)])
def test_long_contexts_in_parts_equal_the_pipeline(reader: Served, size: int, stride: int) -> None:
    items = questions(60, seed=5)[22:]
    items += [{"question": "what?", "context": "good bad " * repeats} for repeats in (29, 30, 99)]
    parameters = {"max_seq_len": size, "doc_stride": stride, "top_k": 2}
    expected = [reader.reference(item, **parameters) for item in items]
    check_same(reader, items, expected, **parameters)
    assert len(reader.task.preprocess(items[-1], parameters)) >= 4


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(min_size=1, max_size=300), st.lists(st.text(min_size=1, max_size=300), max_size=4))
def test_an_answer_does_not_depend_on_its_batch_mates(
    reader: Served, first: str, others: list[str]
) -> None:
    items = [{"question": "what?", "context": text} for text in (*others, first)]
    parameters = {"max_seq_len": 32, "doc_stride": 8}
    alone = reader.answer(items[-1], **parameters)
    check_close(reader.answers(items, **parameters)[-1], alone, atol=1e-5)


@pytest.mark.parametrize(
    "item",
    [
        "a text",
        {"question": "who?"},
        {"question": "who?", "context": ""},
        {"question": "", "context": "me"},
        {"question": 1, "context": "me"},
        {"question": "who?", "context": "me", "more": "x"},
    ],
)
def test_what_is_no_question(reader: Served, item: object) -> None:
    with pytest.raises(InvalidInputError):
        reader.task.preprocess(item, {})


@pytest.mark.parametrize(
    "parameters",
    [{"top_k": 0}, {"max_answer_len": 0}, {"doc_stride": -1}, {"align_to_words": 1}, {"x": 1}],
)
def test_parameters_that_cannot_be_used(reader: Served, parameters: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        reader.task.preprocess({"question": "who?", "context": "me"}, parameters)


def test_a_question_without_room_for_its_context(reader: Served) -> None:
    item = {"question": "why " * 70, "context": "because"}
    with pytest.raises(InvalidInputError, match="room"):
        reader.task.preprocess(item, {})


def test_nan_becomes_an_error(reader: Served) -> None:
    rows = reader.task.preprocess({"question": "who?", "context": "me"}, {})
    broken = np.full(rows[0].length, np.nan, dtype=np.float32)
    with pytest.raises(NonFiniteOutputError):
        reader.task.postprocess(rows, [{"start_logits": broken, "end_logits": broken}], {})
