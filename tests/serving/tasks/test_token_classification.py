"""Entities are those of transformers' pipeline on the same directory, alone or in any batch."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.errors import InvalidInputError, NonFiniteOutputError
from tests.exports import export_directory
from tests.serving.task_models import NER_LABELS as LABELS
from tests.serving.task_models import TaskModels
from tests.serving.tasks.served import Served, check_close, check_same, open_served
from tests.serving.tasks.texts import varied_texts

STRATEGIES = ("none", "simple", "first", "average", "max")


@pytest.fixture(scope="module")
def ner(task_models: TaskModels) -> Served:
    from transformers import pipeline

    model, export = (of("token-classification") for of in (task_models.model, task_models.export))
    # Random weights make a near tie now and then.
    assert min(export.report.label_agreement, export.report.batched_label_agreement) > 0.999
    return open_served(export, pipeline("token-classification", model=str(model)))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_entities_equal_the_pipeline(ner: Served, strategy: str) -> None:
    texts = varied_texts()
    expected = [ner.reference(text, aggregation_strategy=strategy) for text in texts]
    check_same(ner, texts, expected, aggregation_strategy=strategy)
    labels = {one.get("entity", one.get("entity_group")) for each in expected for one in each}
    assert len(labels) > 2


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
@pytest.mark.parametrize("stride", [0, 5, 30])
def test_a_long_text_in_parts_equals_the_pipeline(ner: Served, strategy: str, stride: int) -> None:
    texts = [*varied_texts(40, seed=7)[25:], "good " * 62, "good " * 63, "good bad " * 120]
    parameters = {"aggregation_strategy": strategy, "stride": stride}
    check_same(ner, texts, [ner.reference(text, **parameters) for text in texts], **parameters)
    assert len(ner.task.preprocess("good " * 200, parameters)) > 3


def test_labels_to_be_left_out_equal_the_pipeline(ner: Served) -> None:
    texts = varied_texts(40)
    for ignored in ([], ["MISC", "B-PER"]):
        expected = [ner.reference(text, ignore_labels=ignored) for text in texts]
        check_same(ner, texts, expected, ignore_labels=ignored)


def test_a_tokenizer_without_word_marks_equals_the_pipeline(tmp_path: Path, ner: Served) -> None:
    """Words are guessed from spaces there, and transformers says so."""
    from transformers import pipeline

    model = tiny_roberta(tmp_path / "model")
    export = export_directory(model, tmp_path / "exports")
    served = open_served(export, pipeline("token-classification", model=str(model)))
    texts = varied_texts(120, seed=4)
    for strategy in ("none", "simple", "average"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            expected = [served.reference(text, aggregation_strategy=strategy) for text in texts]
        check_same(served, texts, expected, aggregation_strategy=strategy)


def tiny_roberta(directory: Path) -> Path:
    """A tiny byte-level model, whose position ids begin after the padding id."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaConfig, RobertaForTokenClassification, RobertaTokenizerFast

    directory.mkdir()
    trained = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(varied_texts(), 400, show_progress=False, special_tokens=special)
    trained.save_model(str(directory))
    tokenizer = RobertaTokenizerFast(
        vocab=str(directory / "vocab.json"),
        merges=str(directory / "merges.txt"),
        model_max_length=48,
    )
    tokenizer.save_pretrained(directory)
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=50,
        initializer_range=0.3,
        id2label=dict(enumerate(LABELS)),
    )
    RobertaForTokenClassification(config).save_pretrained(directory)
    return directory


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    first=st.text(max_size=200),
    others=st.lists(st.text(max_size=200), min_size=1, max_size=6),
    strategy=st.sampled_from(STRATEGIES),
)
def test_an_answer_does_not_depend_on_its_batch_mates(
    ner: Served, first: str, others: list[str], strategy: str
) -> None:
    alone = ner.answer(first, aggregation_strategy=strategy)
    together = ner.answers([*others, first], aggregation_strategy=strategy)[-1]
    check_close(together, alone, atol=1e-5)


@pytest.mark.parametrize(
    "parameters",
    [
        {"aggregation_strategy": "best"},
        {"aggregation_strategy": 1},
        {"ignore_labels": "O"},
        {"ignore_labels": [1]},
        {"stride": 4},
        {"stride": -1, "aggregation_strategy": "simple"},
        {"top_k": 1},
    ],
)
def test_parameters_that_cannot_be_used(ner: Served, parameters: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        ner.task.preprocess("good", parameters)


def test_a_stride_as_long_as_a_part_is_refused(ner: Served) -> None:
    with pytest.raises(InvalidInputError, match="stride"):
        ner.task.preprocess("good " * 100, {"stride": 62, "aggregation_strategy": "simple"})


@pytest.mark.parametrize("item", [None, 3, ["good"], {"text": "good"}])
def test_an_item_that_is_no_text(ner: Served, item: object) -> None:
    with pytest.raises(InvalidInputError):
        ner.task.preprocess(item, {})


def test_nan_becomes_an_error(ner: Served) -> None:
    rows = ner.task.preprocess("good", {})
    logits = np.full((3, len(LABELS)), np.nan, dtype=np.float32)
    with pytest.raises(NonFiniteOutputError):
        ner.task.postprocess(rows, [{"logits": logits}], {})
