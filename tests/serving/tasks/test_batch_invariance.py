"""An answer is the same alone as with any batch-mates: labels, spans and words exactly, scores to
1e-5, for every text task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry import Export
from serving.engines.onnx import open_onnx
from serving.tasks import open_task
from tests.models import WORDS
from tests.serving.conftest import TinyModel
from tests.serving.task_models import TASKS, TaskModels
from tests.serving.tasks.served import Served, check_close
from tests.serving.tasks.texts import EDGES

Make = Callable[[list[str]], Any]

FORMS: Mapping[str, tuple[Make, Mapping[str, Any]]] = {
    "text-classification": (lambda t: {"text": t[0], "text_pair": t[1]}, {"top_k": None}),
    "token-classification": (lambda t: t[0], {"ignore_labels": []}),
    "question-answering": (
        lambda t: {"question": f"what {t[0][:16]}", "context": f"it {t[1]}"},
        {"doc_stride": 8, "max_seq_len": 48},
    ),
    "fill-mask": (lambda t: f"{t[0][:60]} [MASK] {t[1]}", {}),
    "feature-extraction": (lambda t: t[0], {}),
    "sentence-similarity": (lambda t: {"source_sentence": t[0], "sentences": t[1:]}, {}),
    "zero-shot-classification": (lambda t: t[0] or "a", {"candidate_labels": ["good", "dull"]}),
    "text-ranking": (lambda t: {"query": t[0][:60], "texts": t[1:]}, {}),
}

texts = st.one_of(
    st.sampled_from(EDGES),
    st.lists(st.sampled_from(WORDS), max_size=70).map(" ".join),
)
groups = st.lists(st.lists(texts, min_size=3, max_size=3), min_size=2, max_size=7)
_opened: dict[str, Served] = {}


def served(task: str, models: Sequence[TinyModel], task_models: TaskModels) -> Served:
    if task not in _opened:
        made: Export | TinyModel
        made = models[0] if task == "text-classification" else task_models.export(task)
        path = made.path if isinstance(made, Export) else made.export
        _opened[task] = Served(open_task(path, None), open_onnx(path, threads=1), None)
    return _opened[task]


@pytest.mark.parametrize("task", FORMS)
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(made_of=groups)
def test_batch_mates_change_nothing(
    task: str,
    models: tuple[TinyModel, TinyModel],
    task_models: TaskModels,
    made_of: list[list[str]],
) -> None:
    model = served(task, models, task_models)
    make, parameters = FORMS[task]
    items = [make(one) for one in made_of]
    together = model.answers(items, **parameters)
    for item, answer in zip(items, together, strict=True):
        check_close(answer, model.answer(item, **parameters), atol=1e-5)


def test_every_text_task_is_here() -> None:
    assert set(TASKS) <= set(FORMS)
