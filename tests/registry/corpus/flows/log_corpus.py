"""Log models as people do, with the real callbacks; print what was logged as one line of JSON.

One process, because importing the trainers costs more than all these trainings together.
What can no longer be installed beside this Python is logged with the SDK in the shape that its
source had then.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "callback" / "flows"))

import pytorch_lightning
import torch
import wandb
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import WandbLogger
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from training import make_trainer
from transformers import AutoModelForSequenceClassification, BertConfig, BertModel, Trainer

import registry
from registry.callback import RunportCallback
from tests.models import tiny_bert, write_bert_tokenizer

HERE = Path.cwd()
PROJECT = "corpus"
QUICK = {"max_steps": 2, "eval_strategy": "no", "save_strategy": "no", "report_to": "wandb"}


def finish() -> str:
    """End the run; return its id."""
    assert wandb.run is not None
    run_id = str(wandb.run.id)
    wandb.finish()
    gc.collect()  # A RunportCallback that is still alive would quiet the stock callback.
    return run_id


@contextmanager
def run(name: str) -> Iterator[Any]:
    with wandb.init(project=PROJECT, name=name) as active:
        yield active


def put(active: Any, name: str, kind: str, files: dict[str, Path | bytes], **facts: Any) -> None:
    artifact = wandb.Artifact(name, type=kind, metadata=facts.get("metadata"))
    for path, source in files.items():
        if isinstance(source, bytes):
            with artifact.new_file(path, mode="wb") as file:
                file.write(source)
        else:
            artifact.add_file(str(source), name=path)
    active.log_artifact(artifact, aliases=facts.get("aliases"))


def stock_trainings() -> dict[str, str]:
    """transformers' own callback, as it is now: once at the end, every checkpoint, no run name."""
    ids = {}
    os.environ["WANDB_LOG_MODEL"] = "end"
    trainer = make_trainer(HERE / "end", callbacks=None, run_name="stock-end", **QUICK)
    trainer.train()
    ids["end"] = finish()
    trainer = make_trainer(HERE / "unnamed", callbacks=None, **QUICK)
    with run("shown-only"):
        trainer.train()
        ids["unnamed"] = str(wandb.run.id)
    os.environ["WANDB_LOG_MODEL"] = "checkpoint"
    trainer = make_trainer(
        HERE / "steps", callbacks=None, run_name="stock-steps", report_to="wandb",
        metric_for_best_model="eval_f1", load_best_model_at_end=True,
    )  # fmt: skip
    trainer.train()
    ids["steps"] = finish()
    return ids


def stock_sentences() -> str:
    bare = HERE / "bare"
    config = BertConfig(
        vocab_size=write_bert_tokenizer(bare), hidden_size=16, num_hidden_layers=1,
        num_attention_heads=2, intermediate_size=16, max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(bare)
    model = SentenceTransformer(modules=[Transformer(str(bare)), Pooling(16)], device="cpu")
    pairs = Dataset.from_dict({"a": ["good film"] * 4, "b": ["fine day"] * 4, "label": [1.0] * 4})
    os.environ["WANDB_LOG_MODEL"] = "checkpoint"
    SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            output_dir=str(HERE / "sentences"), run_name="sentences", report_to="wandb",
            max_steps=2, save_steps=2, per_device_train_batch_size=4, use_cpu=True,
            disable_tqdm=True, dataloader_pin_memory=False,
        ),
        train_dataset=pairs,
        loss=CosineSimilarityLoss(model),
    ).train()  # fmt: skip
    return finish()


def stock_adapter() -> str:
    """A PEFT model with transformers' callback alone; the run used its base model."""
    os.environ["WANDB_LOG_MODEL"] = "end"
    plain = make_trainer(HERE / "lora", callbacks=None, run_name="stock-lora", **QUICK)
    with run("stock-lora") as active:
        active.use_artifact(f"{active.entity}/{PROJECT}/run-ours:v0")
        adapt(plain, []).train()
        run_id = str(active.id)
    with run("orphan-lora"):
        plain.args.run_name = "orphan-lora"
        adapt(plain, []).train()
    return run_id


def adapt(plain: Trainer, callbacks: list[Any]) -> Trainer:
    return Trainer(
        model=get_peft_model(plain.model, LoraConfig(task_type="SEQ_CLS", r=2)),
        args=plain.args,
        train_dataset=plain.train_dataset,
        processing_class=plain.processing_class,
        callbacks=callbacks,
    )


def ours() -> list[str]:
    """Runport's callback: two runs under one name, and an adapter of what the first one made."""
    os.environ["WANDB_LOG_MODEL"] = "true"
    ids = []
    for rate in (0.01, 0.02):
        make_trainer(
            HERE / "ours",
            callbacks=[RunportCallback()],
            run_name="ours",
            **{**QUICK, "learning_rate": rate},
        ).train()
        ids.append(finish())
    plain = make_trainer(HERE / "adapter", callbacks=None, run_name="adapter", **QUICK)
    plain.model = registry.load(f"{PROJECT}/run-ours:v0", AutoModelForSequenceClassification)
    callback = RunportCallback()
    adapt(plain, [callback]).train()
    assert not callback.failures, callback.failures
    del callback, plain
    ids.append(finish())
    return ids


class Line(pytorch_lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch: Any, _index: int) -> Any:
        return self.layer(batch[0]).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def lightning() -> str:
    rows = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.zeros(4, 2)))
    logger = WandbLogger(project=PROJECT, name="lit", log_model=True, save_dir=str(HERE))
    pytorch_lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=logger, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=str(HERE / "lit"),
        callbacks=[ModelCheckpoint(dirpath=str(HERE / "lit"))],
    ).fit(Line(), rows)  # fmt: skip
    return finish()


def by_hand() -> dict[str, str]:
    """`run.log_model`, a table, a dataset, two runs of one name, and a collection of ours."""
    model = tiny_bert(HERE / "my-model")
    with run("by-hand") as active:
        active.log_model(path=str(model))
        active.log({"answers": wandb.Table(columns=["a"], data=[[1]])})
        put(active, "rows", "dataset", {"rows.json": b"[]"})
        ids = {"by-hand": str(active.id)}
    for number in range(2):
        with run("twin") as active:
            put(active, f"model-{active.id}", "model", {"config.json": b"{}"})
            ids[f"twin-{number}"] = str(active.id)
    return ids


def earlier_eras() -> dict[str, str]:
    """What cannot be installed here, in the shape that its source gave to artifacts."""
    model = tiny_bert(HERE / "era")
    whole: dict[str, Path | bytes] = {path.name: path for path in model.iterdir()}
    pickled = {
        **whole,
        "pytorch_model.bin": b"PK\x03\x04 a pickle",
        "training_args.bin": b"\x80\x02",
    }
    del pickled["model.safetensors"]
    metrics = {"eval/f1": 0.5, "train/global_step": 500}
    ids = {}
    with run("t44") as active:  # transformers 4.2 to 4.4
        put(active, "run-t44", "model", pickled, metadata=metrics)
    with run("t425") as active:  # 4.5 to 4.25
        put(active, f"model-{active.id}", "model", pickled, metadata=metrics)
    with run("t430") as active:  # 4.26 to 4.41, `end`
        put(active, "model-t430", "model", {**whole, "training_args.bin": b"\x80\x02"})
    with run("t441") as active:  # 4.26 to 4.41, `checkpoint`
        state = {
            "optimizer.pt": b"\x80\x02",
            "rng_state.pth": b"\x80\x02",
            "trainer_state.json": b"{}",
        }
        for step in (500, 1000):
            put(
                active, "checkpoint-t441", "model", {**whole, **state, "step.txt": b"%d" % step},
                aliases=[f"checkpoint-{step}"], metadata={"eval/f1": step / 2000},
            )  # fmt: skip
        put(active, "model-t441", "model", whole)
    with run("yolo") as active:  # Ultralytics
        put(active, f"run_{active.id}_model", "model", {"best.pt": b"PK\x03\x04"}, aliases=["best"])
        ids["yolo"] = str(active.id)
    with run("keras") as active:  # Keras' WandbModelCheckpoint
        put(active, f"run_{active.id}_model", "model", {"model.keras": b"PK\x03\x04"})
    return ids


def main() -> None:
    warnings.simplefilter("ignore")
    os.environ["WANDB_PROJECT"] = PROJECT
    runs = {
        "stock": stock_trainings(),
        "sentences": stock_sentences(),
        "ours": ours(),
        "lora": stock_adapter(),
        "lit": lightning(),
        "by_hand": by_hand(),
        "eras": earlier_eras(),
    }
    sys.stdout.write(json.dumps(runs) + "\n")


if __name__ == "__main__":
    main()
