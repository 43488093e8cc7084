from __future__ import annotations

import gc
import logging
import os

import pytest
from transformers.integrations.integration_utils import WandbCallback, WandbLogModel, logger

from registry.callback import RunportCallback
from registry.config import LogModel, TrainingSettings
from registry.errors import ConfigError

END = TrainingSettings(log_model=LogModel.END)


@pytest.fixture
def asked_for_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "WANDB_LOG_MODEL", "end")


@pytest.mark.usefixtures("asked_for_end")
def test_the_stock_callback_leaves_models_alone_in_either_order() -> None:
    before = WandbCallback()
    ours = RunportCallback(settings=END)
    after = WandbCallback()
    assert before._log_model is WandbLogModel.FALSE
    assert after._log_model is WandbLogModel.FALSE
    assert before._wandb is not None
    del ours
    gc.collect()
    assert before._log_model is WandbLogModel.END
    assert after._log_model is WandbLogModel.END


@pytest.mark.usefixtures("asked_for_end")
def test_without_models_of_ours_the_stock_callback_is_left_alone() -> None:
    ours = RunportCallback("false")
    assert ours.settings.log_model is LogModel.FALSE
    assert WandbCallback()._log_model is WandbLogModel.END


def test_disabled_silences_metrics_too() -> None:
    stock = WandbCallback()
    ours = RunportCallback(settings=TrainingSettings(disabled=True))
    assert stock._wandb is None
    del ours
    gc.collect()
    assert stock._wandb is not None


def test_true_is_not_called_disabled(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(os.environ, "WANDB_LOG_MODEL", "true")
    monkeypatch.setattr(logger, "propagate", True)
    # Other tests of the same process may have made transformers quieter.
    with caplog.at_level(logging.WARNING, logger=logger.name):
        ours = RunportCallback()
        WandbCallback()
        assert not caplog.records
        del ours
        gc.collect()
        WandbCallback()
    assert "unrecognized" in caplog.text


def test_a_wrong_value_is_refused_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "WANDB_LOG_MODEL", "sometimes")
    with pytest.raises(ConfigError, match="WANDB_LOG_MODEL"):
        RunportCallback()
    with pytest.raises(ConfigError, match="'never'"):
        RunportCallback("never", settings=END)
