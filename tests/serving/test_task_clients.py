"""Every text task through a running server with the real client of the inference API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from huggingface_hub import InferenceClient

from tests.serving.server_process import ServerProcess, server_process
from tests.serving.task_models import TaskModels

NAMES = {
    "ner": "token-classification",
    "qa": "question-answering",
    "mask": "fill-mask",
    "embed": "feature-extraction",
    "similar": "sentence-similarity",
    "zero": "zero-shot-classification",
    "rank": "text-ranking",
}


@pytest.fixture(scope="module")
def server(
    task_models: TaskModels, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """One server with a deployment of each task."""
    names = [f"{name}={task_models.export(task).path}" for name, task in NAMES.items()]
    home = tmp_path_factory.mktemp("tasks")
    with server_process(home, *names, "--no-report", "--threads", "1") as running:
        yield running


def client(server: ServerProcess, name: str) -> InferenceClient:
    return InferenceClient(model=f"{server.url}/models/{name}")


def post(server: ServerProcess, name: str, body: dict[str, object]) -> httpx.Response:
    return httpx.post(f"{server.url}/models/{name}", json=body, timeout=60)


def test_token_classification(server: ServerProcess) -> None:
    text = "the old actor loved naïve music"
    for one in client(server, "ner").token_classification(text, aggregation_strategy="simple"):
        assert one.entity_group in {"PER", "LOC", "MISC"}
        assert one.start is not None
        assert text[one.start : one.end].lower() == text[one.start : one.end]
        assert 0 < one.score <= 1
    plain = client(server, "ner").token_classification(text, ignore_labels=[])
    assert [one.word for one in plain][:3] == ["the", "old", "actor"]
    many = post(server, "ner", {"inputs": [text, ""]}).json()
    assert len(many) == 2
    assert many[1] == []


def test_question_answering(server: ServerProcess) -> None:
    context = "the film was long and the music was good"
    found = client(server, "qa").question_answering(question="what was good?", context=context)
    assert context[found.start : found.end] == found.answer
    several = post(
        server,
        "qa",
        {"inputs": {"question": "what?", "context": context * 20}, "parameters": {"top_k": 3}},
    ).json()
    assert len(several) == 3


def test_fill_mask(server: ServerProcess) -> None:
    found = client(server, "mask").fill_mask("a [MASK] film", top_k=3)
    assert len(found) == 3
    assert all("film" in one.sequence and one.token_str for one in found)
    (good,) = client(server, "mask").fill_mask("a [MASK] film", targets=["good"])
    assert good.token_str == "good"


def test_feature_extraction(server: ServerProcess) -> None:
    tokens = client(server, "embed").feature_extraction("a good film")
    assert tokens.shape == (5, 32)
    answer = post(server, "embed", {"inputs": ["a", "b c"], "pooling": "mean", "normalize": True})
    np.testing.assert_allclose(np.linalg.norm(answer.json(), axis=1), 1, atol=1e-5)


def test_sentence_similarity(server: ServerProcess) -> None:
    found = client(server, "similar").sentence_similarity("a film", ["a film", "old music"])
    assert found[0] == pytest.approx(1, abs=1e-5)
    assert found[1] < found[0]


def test_zero_shot_classification(server: ServerProcess) -> None:
    labels = ["good", "bad", "red"]
    found = client(server, "zero").zero_shot_classification("a film", labels)
    assert sorted(one.label for one in found) == sorted(labels)
    assert sum(one.score for one in found) == pytest.approx(1)
    several = client(server, "zero").zero_shot_classification("a film", labels, multi_label=True)
    assert all(0 < one.score < 1 for one in several)


def test_text_ranking(server: ServerProcess) -> None:
    texts = ["good", "old film", "café"]
    answer = post(server, "rank", {"inputs": {"query": "film", "texts": texts}}).json()
    assert sorted(one["index"] for one in answer) == [0, 1, 2]
    assert answer[0]["score"] >= answer[-1]["score"]


def test_a_mistake_is_told(server: ServerProcess) -> None:
    answer = post(server, "mask", {"inputs": "nothing to fill in"})
    assert answer.status_code == 422
    assert "[MASK]" in answer.json()["detail"]
    assert post(server, "zero", {"inputs": "a film"}).status_code == 422


def test_rows_are_counted_in_batches(server: ServerProcess) -> None:
    texts = ["one", "two", "ten", "red"]
    post(server, "similar", {"inputs": {"source_sentence": "old", "sentences": texts}})
    metrics = httpx.get(f"{server.url}/metrics", timeout=30).text
    assert 'deployment="similar"' in metrics


def test_a_deployment_may_have_another_task_than_its_architecture(
    task_models: TaskModels, tmp_path: Path
) -> None:
    task = "zero-shot-classification"
    task_models.export(task)
    arguments = (f"zero={task_models.model(task)}", "--task", f"zero={task}", "--no-report")
    cache = {"RUNPORT_CACHE_DIR": str(task_models.cache)}
    with server_process(tmp_path, *arguments, environment=cache) as running:
        assert running.model("zero")["task"] == task
        (found,) = client(running, "zero").zero_shot_classification("a film", ["good"])
        assert found.label == "good"
