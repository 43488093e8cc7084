from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from transformers import Seq2SeqTrainingArguments, TrainingArguments

from registry.callback.arguments import json_safe, public_arguments, write_arguments

TOKEN = "hf_ThisTokenMustNeverLeave0000"


@pytest.fixture
def arguments(tmp_path: Path) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(tmp_path / "out"),
        hub_token=TOKEN,
        hub_model_id="me/model",
        learning_rate=3e-5,
        use_cpu=True,
        accelerator_config={"split_batches": True},
        report_to="none",
    )


def test_arguments_are_json_without_secrets(arguments: TrainingArguments, tmp_path: Path) -> None:
    text = write_arguments(arguments, tmp_path).read_text()
    assert TOKEN not in text
    written = json.loads(text)
    assert "hub_token" not in written
    assert written["hub_model_id"] == "me/model"
    assert written["learning_rate"] == 3e-5
    assert written["accelerator_config"]["split_batches"] is True


def test_only_secrets_are_left_out(arguments: TrainingArguments) -> None:
    left_out = set(arguments.to_dict()) - set(public_arguments(arguments))
    assert left_out == {"hub_token"}


def test_generation_settings_with_token_ids_stay(tmp_path: Path) -> None:
    arguments = Seq2SeqTrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, generation_max_length=7, report_to="none"
    )
    assert public_arguments(arguments)["generation_max_length"] == 7


class Arguments:
    """Stands for arguments of a Trainer of one's own."""

    def to_dict(self) -> dict[str, object]:
        return {
            "nested": {"api_key": "x", "depth": {"secret": "y", "kept": 1, "auth_token": "z"}},
            "remote": "https://user:hunter2@host/path",
            "plain": "https://host:8080/path",
            "items": [TOKEN, "kept", float("inf")],
            "aws_secret_access_key": "q",
            "average_tokens_across_devices": True,
            "eos_token_id": 3,
            "label_key": "kept",
        }


def test_secrets_are_found_at_any_depth_and_in_texts() -> None:
    assert public_arguments(Arguments()) == {
        "nested": {"depth": {"kept": 1}},
        "plain": "https://host:8080/path",
        "items": ["kept", None],
        "average_tokens_across_devices": True,
        "eos_token_id": 3,
        "label_key": "kept",
    }


def test_json_safe() -> None:
    value = {1: float("nan"), "a": np.float32(0.5), "b": (np.int64(2), {3}), "c": Path("/x")}
    safe = json_safe(value)
    assert safe == {"1": None, "a": 0.5, "b": [2, [3]], "c": "/x"}
    json.dumps(safe, allow_nan=False)
