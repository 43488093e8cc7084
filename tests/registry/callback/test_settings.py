from __future__ import annotations

import pytest

from registry.config import LogModel, TrainingSettings, parse_log_model
from registry.errors import ConfigError


def test_defaults_are_wandbs_documented_ones() -> None:
    assert TrainingSettings.from_environment({}) == TrainingSettings(
        log_model=LogModel.FALSE,
        project="huggingface",
        watch=None,
        disabled=False,
        training_state=False,
        upload_timeout_s=3600,
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("true", LogModel.END),
        ("TRUE", LogModel.END),
        ("1", LogModel.END),
        ("end", LogModel.END),
        ("checkpoint", LogModel.CHECKPOINT),
        ("false", LogModel.FALSE),
        ("0", LogModel.FALSE),
        ("", LogModel.FALSE),
    ],
)
def test_log_model(text: str, expected: LogModel) -> None:
    assert parse_log_model(text) is expected
    environment = {"WANDB_LOG_MODEL": text}
    assert TrainingSettings.from_environment(environment).log_model is expected


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("WANDB_LOG_MODEL", "sometimes"),
        ("WANDB_WATCH", "everything"),
        ("WANDB_DISABLED", "perhaps"),
        ("RUNPORT_LOG_TRAINING_STATE", "some"),
        ("RUNPORT_UPLOAD_TIMEOUT_S", "-1"),
    ],
)
def test_a_wrong_value_is_named(variable: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"{variable}='{value}'") as caught:
        TrainingSettings.from_environment({variable: value})
    assert caught.value.hint


def test_the_other_variables() -> None:
    settings = TrainingSettings.from_environment(
        {
            "WANDB_PROJECT": "sentiment",
            "WANDB_WATCH": "Gradients",
            "WANDB_DISABLED": "true",
            "RUNPORT_LOG_TRAINING_STATE": "1",
            "RUNPORT_UPLOAD_TIMEOUT_S": "30",
        }
    )
    assert settings.project == "sentiment"
    assert settings.watch == "gradients"
    assert settings.disabled
    assert settings.training_state
    assert settings.upload_timeout_s == 30
