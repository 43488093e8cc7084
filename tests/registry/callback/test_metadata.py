from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    TrainerState,
    TrainingArguments,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from registry.callback.metadata import (
    MAX_KEYS,
    Chosen,
    checkpoint_choice,
    evaluation_metrics,
    final_choice,
    model_facts,
    model_task,
    renamed_metrics,
    version_metadata,
)
from registry.naming import metric_value
from tests.models import tiny_bert

HISTORY: list[dict[str, Any]] = [
    {"loss": 1.5, "step": 2, "epoch": 0.5},
    {"eval_loss": 0.9, "eval_f1": 0.91, "step": 4, "epoch": 1.0},
    {"eval_other_f1": 0.3, "step": 4, "epoch": 1.0},
    {"loss": 1.2, "step": 6, "epoch": 1.5},
    {"eval_loss": 0.8, "eval_f1": float("nan"), "eval_note": "x", "step": 8, "epoch": 2.0},
    {"train_loss": 1.3, "total_flos": 7.0, "step": 8, "epoch": 2.0},
]


def state(**changes: Any) -> TrainerState:
    return TrainerState(global_step=8, epoch=2.0, log_history=list(HISTORY), **changes)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    base = tiny_bert(
        tmp_path_factory.mktemp("m") / "base",
        labels=("no", "yes"),
        hidden_size=16,
        layers=1,
        problem_type="single_label_classification",
    )
    return AutoModelForSequenceClassification.from_pretrained(base)


@pytest.fixture
def arguments(tmp_path: Path) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(tmp_path),
        use_cpu=True,
        report_to="none",
        load_best_model_at_end=True,
        eval_strategy="epoch",
        save_strategy="epoch",
        metric_for_best_model="f1",
    )


def test_the_best_checkpoint_has_its_own_metrics(arguments: TrainingArguments, model: Any) -> None:
    best = state(best_metric=0.91, best_global_step=4, best_model_checkpoint="/x/checkpoint-4")
    chosen = final_choice(arguments, best)
    assert chosen == Chosen(step=4, epoch=1.0, selected="best")
    found = version_metadata(model=model, args=arguments, state=best, chosen=chosen, run_name="été")
    assert found["run_name"] == "été"
    assert (found["step"], found["epoch"], found["selected"]) == (4, 1.0, "best")
    assert (found["eval/f1"], found["eval/loss"], found["eval/other_f1"]) == (0.91, 0.9, 0.3)
    assert (found["best_metric_name"], found["best_metric"]) == ("f1", 0.91)
    assert found["train/loss"] == 1.5
    assert found["task"] == "text-classification"
    assert found["problem_type"] == "single_label_classification"
    assert (found["num_labels"], found["labels"]) == (2, ["no", "yes"])
    assert found["base_model"].endswith("base")
    assert found["transformers_version"]
    assert found["num_parameters"] == model.num_parameters()
    json.dumps(found, allow_nan=False)


def test_an_older_state_names_its_best_step_by_the_directory(arguments: TrainingArguments) -> None:
    best = state(best_metric=0.91, best_model_checkpoint="/x/checkpoint-4")
    assert final_choice(arguments, best).step == 4


def test_without_a_best_checkpoint_it_is_the_last_step(arguments: TrainingArguments) -> None:
    assert final_choice(arguments, state()) == Chosen(8, 2.0, "last")
    arguments.load_best_model_at_end = False
    best = state(best_metric=0.91, best_global_step=4, best_model_checkpoint="/x/checkpoint-4")
    assert final_choice(arguments, best) == Chosen(8, 2.0, "last")
    assert checkpoint_choice(best) == Chosen(8, 2.0, "checkpoint")


def test_metrics_of_other_steps_are_left_out_and_nan_is_none() -> None:
    assert evaluation_metrics(HISTORY, 8) == {"eval/loss": 0.8, "eval/f1": None}
    assert evaluation_metrics(HISTORY, 6) == {}


def test_a_metric_that_is_called_eval_already_is_not_doubled() -> None:
    assert renamed_metrics({"eval_eval/f1": 0.5, "test_loss": 1, "eval_flag": True}) == {
        "eval/f1": 0.5,
        "test/loss": 1,
    }


def test_promotion_finds_the_metrics() -> None:
    found = evaluation_metrics(HISTORY, 4)
    assert metric_value(found, "eval/f1") == 0.91
    assert metric_value(found, "eval_loss") == 0.9
    assert metric_value(evaluation_metrics(HISTORY, 8), "eval/f1") is None


def test_very_many_metrics_cost_no_facts(arguments: TrainingArguments, model: Any) -> None:
    many = TrainerState(
        global_step=1, epoch=1.0, log_history=[{f"eval_m{i}": i for i in range(300)} | {"step": 1}]
    )
    found = version_metadata(
        model=model, args=arguments, state=many, chosen=checkpoint_choice(many), run_name="x"
    )
    assert len(found) == MAX_KEYS
    assert found["task"] == "text-classification"
    assert "transformers_version" in found
    assert found["eval/m0"] == 0


def test_tasks_by_architecture() -> None:
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    masked = BertForMaskedLM(BertConfig(vocab_size=9, intermediate_size=8, **small))
    assert model_task(masked) == "fill-mask"
    assert "num_labels" not in model_facts(masked)
    generator = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=1))
    assert model_task(generator) == "text-generation"
    whisper = WhisperConfig(
        vocab_size=9, d_model=8, encoder_layers=1, decoder_layers=1, pad_token_id=0,
        encoder_attention_heads=1, decoder_attention_heads=1, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1,
    )  # fmt: skip
    assert model_task(WhisperForConditionalGeneration(whisper)) == "automatic-speech-recognition"
    assert model_task(SimpleNamespace()) is None
