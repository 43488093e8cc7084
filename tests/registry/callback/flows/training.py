"""A tiny classifier and the real Trainer, for the flow scripts beside it (run as scripts)."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[4]))

import numpy as np
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Trainer,
    TrainingArguments,
)

from tests.models import tiny_bert

LABELS = ("negative", "neutral", "positive")


class Rows(torch.utils.data.Dataset):  # type: ignore[misc]
    """Sixteen short token rows with labels; the same every time."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict[str, Any]:
        words = [2, 5 + index, 6 + index, 3]
        return {"input_ids": words, "attention_mask": [1] * 4, "labels": index % len(LABELS)}


class ScriptedMetric:
    """A compute_metrics whose f1 follows a script, so that the best checkpoint is known."""

    def __init__(self, *scores: float) -> None:
        self.scores = list(scores)
        self.calls = 0

    def __call__(self, prediction: object) -> Mapping[str, float]:
        score = self.scores[min(self.calls, len(self.scores) - 1)]
        self.calls += 1
        return {"f1": score, "broken": float("nan"), "rows": np.int64(16)}


def make_trainer(
    directory: Path, *, callbacks: list[Any] | None, scores: tuple[float, ...] = (0.5, 0.9, 0.7),
    **arguments: Any,
) -> Trainer:  # fmt: skip
    """Return a Trainer of 3 epochs of 4 steps over a tiny BERT."""
    base = tiny_bert(directory / "base", labels=LABELS, hidden_size=16, layers=1)
    settings: dict[str, Any] = {
        "output_dir": str(directory / "out"),
        "num_train_epochs": 3,
        "per_device_train_batch_size": 4,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "logging_steps": 2,
        "metric_for_best_model": "f1",
        "learning_rate": 0.01,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "use_cpu": True,
        "hub_token": "hf_ThisTokenMustNeverLeave0000",
        **arguments,
    }
    return Trainer(
        model=AutoModelForSequenceClassification.from_pretrained(base),
        args=TrainingArguments(**settings),
        train_dataset=Rows(),
        eval_dataset=Rows(),
        processing_class=AutoTokenizer.from_pretrained(base),
        compute_metrics=ScriptedMetric(*scores),
        callbacks=callbacks,
    )
