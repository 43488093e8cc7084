"""Zero-shot classification and ranking: one row per label or text, answers as the references'."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry import read_source, task_in, task_of
from serving.errors import InvalidInputError, LoadError, NonFiniteOutputError
from serving.tasks import open_task
from serving.tasks.text_ranking import TextRanking
from tests.serving.task_models import TaskModels
from tests.serving.tasks.served import Served, check_close, check_same, open_served
from tests.serving.tasks.texts import varied_texts

CANDIDATES = ["good film", "slow", "東京", "a very long label " * 4, "slow"]


@pytest.fixture(scope="module")
def zero_shot(task_models: TaskModels) -> Served:
    from transformers import pipeline

    task = "zero-shot-classification"
    reference = pipeline(task, model=str(task_models.model(task)))
    return open_served(task_models.export(task), reference)


@pytest.fixture(scope="module")
def ranker(task_models: TaskModels) -> Served:
    from sentence_transformers import CrossEncoder

    reference = CrossEncoder(str(task_models.model("text-ranking")), device="cpu")
    return open_served(task_models.export("text-ranking"), reference)


def test_a_saved_cross_encoder_ranks(ranker: Served, tmp_path: Path) -> None:
    ranker.reference.save_pretrained(str(tmp_path))
    assert read_source(tmp_path).task.name == "text-ranking"
    task = open_task(tmp_path, None)
    assert isinstance(task, TextRanking)
    assert task.bounded
    path = tmp_path / "config_sentence_transformers.json"
    saved = json.loads(path.read_text()) | {"activation_fn": "torch.nn.modules.linear.Identity"}
    path.write_text(json.dumps(saved))
    unbounded = open_task(tmp_path, None)
    assert isinstance(unbounded, TextRanking)
    assert not unbounded.bounded


def pairs(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The pipeline's answer in the shape that clients of the inference API read."""
    return [
        {"label": label, "score": score}
        for label, score in zip(found["labels"], found["scores"], strict=True)
    ]


@pytest.mark.parametrize(
    "parameters",
    [
        {"candidate_labels": CANDIDATES},
        {"candidate_labels": CANDIDATES, "multi_label": True},
        {"candidate_labels": ["good"]},
        {"candidate_labels": "good, bad ,fine", "hypothesis_template": "it is {} ."},
    ],
)
def test_labels_equal_the_pipeline(zero_shot: Served, parameters: dict[str, Any]) -> None:
    count = 220 if parameters.get("multi_label") is None else 60
    texts = [text for text in varied_texts(count + 1) if text]
    expected = [pairs(zero_shot.reference(text, **parameters)) for text in texts]
    found = [zero_shot.answer(text, **parameters) for text in texts]
    for one, other in zip(found, expected, strict=True):
        # Equal labels have equal scores, and either may come first.
        check_close(sorted(one, key=rank), sorted(other, key=rank))
        assert [entry["score"] for entry in one] == sorted(
            (entry["score"] for entry in one), reverse=True
        )
    check_same(zero_shot, texts[:28], found[:28], **parameters)


def rank(entry: dict[str, Any]) -> tuple[str, float]:
    return entry["label"], round(entry["score"], 3)


def test_scores_equal_sentence_transformers(ranker: Served) -> None:
    texts = varied_texts()
    query = "a good film"
    expected = ranker.reference.predict([(query, text) for text in texts])
    found = ranker.answer({"query": query, "texts": texts}, return_text=True)
    assert [entry["text"] for entry in found] == [texts[entry["index"]] for entry in found]
    scores = {entry["index"]: entry["score"] for entry in found}
    np.testing.assert_allclose([scores[i] for i in range(len(texts))], expected, atol=1e-4, rtol=0)
    assert [entry["score"] for entry in found] == sorted(scores.values(), reverse=True)


def test_raw_scores_are_logits_and_top_k_cuts(ranker: Served) -> None:
    item = {"query": "slow", "texts": ["good", "bad film", "it is what it is"]}
    raw = ranker.answer(item, raw_scores=True)
    bounded = ranker.answer(item, top_k=2)
    logits = np.array([entry["score"] for entry in raw[:2]])
    np.testing.assert_allclose(
        [entry["score"] for entry in bounded], 1 / (1 + np.exp(-logits)), atol=1e-6
    )


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(min_size=1, max_size=200), st.lists(st.text(min_size=1, max_size=200), max_size=4))
def test_an_answer_does_not_depend_on_its_batch_mates(
    zero_shot: Served, ranker: Served, first: str, others: list[str]
) -> None:
    parameters = {"candidate_labels": ["good", "bad"]}
    alone = zero_shot.answer(first, **parameters)
    check_close(zero_shot.answers([*others, first], **parameters)[-1], alone, atol=1e-5)
    item = {"query": "good", "texts": [first]}
    batch = [*({"query": text, "texts": ["a", text]} for text in others), item]
    check_close(ranker.answers(batch)[-1], ranker.answer(item), atol=1e-5)


@pytest.mark.parametrize(
    ("item", "parameters"),
    [
        ("good", {}),
        ("", {"candidate_labels": ["a"]}),
        (3, {"candidate_labels": ["a"]}),
        ("good", {"candidate_labels": []}),
        ("good", {"candidate_labels": " , "}),
        ("good", {"candidate_labels": ["a", 1]}),
        ("good", {"candidate_labels": ["a"], "hypothesis_template": "no place"}),
        ("good", {"candidate_labels": ["a"], "hypothesis_template": "{0.__class__}"}),
        ("good", {"candidate_labels": ["a"], "multi_label": "yes"}),
        ("good", {"candidate_labels": ["a"], "top_k": 1}),
        ("good " * 99, {"candidate_labels": ["long " * 80]}),
    ],
)
def test_what_cannot_be_classified(
    zero_shot: Served, item: object, parameters: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInputError):
        zero_shot.task.preprocess(item, parameters)


@pytest.mark.parametrize(
    ("item", "parameters"),
    [
        ("good", {}),
        ({"query": "a", "texts": []}, {}),
        ({"query": 1, "texts": ["b"]}, {}),
        ({"query": "a", "texts": "b"}, {}),
        ({"query": "a", "texts": ["b"]}, {"top_k": 0}),
        ({"query": "a", "texts": ["b"]}, {"raw_scores": "no"}),
        ({"query": "a", "texts": ["b"]}, {"normalize": True}),
    ],
)
def test_what_cannot_be_ranked(ranker: Served, item: object, parameters: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        ranker.task.preprocess(item, parameters)


def test_nan_becomes_an_error(zero_shot: Served, ranker: Served) -> None:
    labels = {"candidate_labels": ["a"]}
    rows = zero_shot.task.preprocess("good", labels)
    with pytest.raises(NonFiniteOutputError):
        zero_shot.task.postprocess(rows, [{"logits": np.full(3, np.nan)}], labels)
    rows = ranker.task.preprocess({"query": "a", "texts": ["b"]}, {})
    with pytest.raises(NonFiniteOutputError):
        ranker.task.postprocess(rows, [{"logits": np.full(1, np.inf)}], {})


def test_a_model_of_another_kind_does_not_open(tiny_model: Path) -> None:
    for task in ("zero-shot-classification", "text-ranking"):
        with pytest.raises(LoadError):
            open_task(tiny_model, task)


@pytest.mark.parametrize(
    ("config", "task"),
    [
        ({"architectures": ["BertForTokenClassification"]}, "token-classification"),
        ({"architectures": ["BertForQuestionAnswering"]}, "question-answering"),
        ({"architectures": ["RobertaForMaskedLM"]}, "fill-mask"),
        ({"architectures": ["MPNetModel"]}, "feature-extraction"),
        ({"architectures": ["BertForSequenceClassification"]}, "text-classification"),
        (
            {
                "architectures": ["BertForSequenceClassification"],
                "sentence_transformers": {"activation_fn": "torch.nn.Identity"},
                "id2label": {"0": "LABEL_0"},
            },
            "text-ranking",
        ),
        ({"architectures": ["BertForNextSentencePrediction"]}, None),
        ({}, None),
        (json.loads('{"architectures": "BertModel"}'), None),
    ],
)
def test_the_task_of_a_config(config: dict[str, object], task: str | None) -> None:
    assert task_of(config) == task


def test_the_task_in_metadata() -> None:
    assert task_in({"task": "fill-mask"}) == "fill-mask"
    assert task_in({"pipeline_tag": "text-ranking", "task": "sst2"}) == "text-ranking"
    assert task_in({"task": ["fill-mask"]}) is None
