"""Proposals are those of transformers' pipeline on the same directory, alone or in any batch."""

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.errors import InvalidInputError, NonFiniteOutputError
from tests.serving.task_models import TaskModels
from tests.serving.tasks.served import Served, check_close, check_same, open_served
from tests.serving.tasks.texts import varied_texts

CUT = {"tokenizer_kwargs": {"truncation": True}}


@pytest.fixture(scope="module")
def filler(task_models: TaskModels) -> Served:
    from transformers import pipeline

    model, export = (of("fill-mask") for of in (task_models.model, task_models.export))
    assert min(export.report.label_agreement, export.report.batched_label_agreement) > 0.99
    return open_served(export, pipeline("fill-mask", model=str(model)))


def masked_texts(count: int = 220, seed: int = 0) -> list[str]:
    texts = varied_texts(count, seed)
    return [
        [f"[MASK] {text}", f"good [MASK] film {text}", f"[MASK] and [MASK] {text}"][index % 3]
        for index, text in enumerate(texts)
    ]


@pytest.mark.parametrize("top_k", [5, 1, 30])
def test_proposals_equal_the_pipeline(filler: Served, top_k: int) -> None:
    texts = masked_texts(220 if top_k == 5 else 40, seed=top_k)
    expected = [filler.reference(text, top_k=top_k, **CUT) for text in texts]
    check_same(filler, texts, expected, top_k=top_k)


@pytest.mark.parametrize("targets", ["good", ["good", "bad", "film", "good"], ["filming", "zz"]])
def test_targets_equal_the_pipeline(filler: Served, targets: Any) -> None:
    texts = masked_texts(40, seed=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = [filler.reference(text, targets=targets, **CUT) for text in texts]
    check_same(filler, texts, expected, targets=targets)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=200), st.lists(st.text(max_size=200), min_size=1, max_size=6))
def test_an_answer_does_not_depend_on_its_batch_mates(
    filler: Served, first: str, others: list[str]
) -> None:
    items = [f"[MASK] {text}" for text in (*others, first)]
    check_close(filler.answers(items)[-1], filler.answer(items[-1]), atol=1e-5)


@pytest.mark.parametrize("item", [1, None, {"text": "[MASK]"}, "no mask", "good " * 80 + "[MASK]"])
def test_what_has_no_mask(filler: Served, item: object) -> None:
    with pytest.raises(InvalidInputError):
        filler.task.preprocess(item, {})


@pytest.mark.parametrize(
    "parameters",
    [{"top_k": 0}, {"top_k": 10**6}, {"targets": []}, {"targets": [1]}, {"targets": ""}, {"x": 1}],
)
def test_parameters_that_cannot_be_used(filler: Served, parameters: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        filler.task.preprocess("[MASK]", parameters)


def test_nan_becomes_an_error(filler: Served) -> None:
    rows = filler.task.preprocess("[MASK]", {})
    with pytest.raises(NonFiniteOutputError):
        filler.task.postprocess(rows, [{"logits": np.full((1, 9), np.nan, np.float32)}], {})
