"""A sentence-transformers training and an adapter training; print what was logged as JSON."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import wandb
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from training import Rows, make_trainer
from transformers import BertConfig, BertModel, Trainer

from registry.callback import RunportCallback
from tests.models import write_bert_tokenizer

HERE = Path.cwd()


def sentences() -> list[dict[str, Any]]:
    bare = HERE / "bare"
    size = write_bert_tokenizer(bare)
    config = BertConfig(
        vocab_size=size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(bare)
    model = SentenceTransformer(modules=[Transformer(str(bare)), Pooling(16)], device="cpu")
    pairs = Dataset.from_dict(
        {"a": ["good film", "bad plot"] * 4, "b": ["great movie", "fine day"] * 4,
         "label": [1.0, 0.0] * 4}
    )  # fmt: skip
    callback = RunportCallback()
    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            output_dir=str(HERE / "out"), run_name="sentences", report_to="wandb", max_steps=2,
            per_device_train_batch_size=4, use_cpu=True, disable_tqdm=True,
            dataloader_pin_memory=False, save_strategy="no",
        ),
        train_dataset=pairs,
        loss=CosineSimilarityLoss(model),
        callbacks=[callback],
    )  # fmt: skip
    trainer.train()
    wandb.finish()
    assert not callback.failures, callback.failures
    return [asdict(item) for item in callback.logged]


def adapter() -> list[dict[str, Any]]:
    plain = make_trainer(
        HERE / "adapter", callbacks=None, report_to="wandb", run_name="adapter", eval_strategy="no"
    )
    callback = RunportCallback()
    trainer = Trainer(
        model=get_peft_model(plain.model, LoraConfig(task_type="SEQ_CLS", r=2)),
        args=plain.args,
        train_dataset=Rows(),
        eval_dataset=Rows(),
        processing_class=plain.processing_class,
        callbacks=[callback],
    )
    trainer.train()
    wandb.finish()
    assert not callback.failures, callback.failures
    return [asdict(item) for item in callback.logged]


if __name__ == "__main__":
    os.environ.update(WANDB_LOG_MODEL="true", WANDB_PROJECT="others")
    sys.stdout.write(json.dumps({"sentences": sentences(), "adapter": adapter()}) + "\n")
