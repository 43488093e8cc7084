"""Train several times against a real server; print what was logged as one line of JSON.

One process, because importing the Trainer costs more than all these trainings together.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import wandb
from training import make_trainer

from registry.callback import RunportCallback

HERE = Path.cwd()
VARIABLES = (
    "RUNPORT_LOG_TRAINING_STATE",
    "WANDB_DISABLED",
    "WANDB_LOG_MODEL",
    "WANDB_PROJECT",
    "WANDB_WATCH",
)


def environment(**values: str) -> None:
    for name in VARIABLES:
        os.environ.pop(name, None)
    os.environ.update(values)


def outcome(callback: RunportCallback) -> dict[str, Any]:
    assert not callback.failures, callback.failures
    return {"logged": [asdict(item) for item in callback.logged]}


def documented() -> dict[str, Any]:
    """What W&B's documentation shows, word for word."""
    environment(WANDB_LOG_MODEL="true")
    callback = RunportCallback()
    trainer = make_trainer(
        HERE / "documented", callbacks=[callback], report_to="wandb",
        run_name="bert-base-high-lr", load_best_model_at_end=True,
    )  # fmt: skip
    trainer.train()
    run_id = wandb.run.id
    wandb.finish()
    row = {key: torch.tensor([value]) for key, value in trainer.eval_dataset[3].items()}
    row.pop("labels")
    with torch.no_grad():
        logits = trainer.model.eval()(**row).logits[0].tolist()
    leftovers = (HERE / "documented" / "out" / "runport").exists()
    return {**outcome(callback), "logits": logits, "run": run_id, "leftovers": leftovers}


def manual_run() -> dict[str, Any]:
    """A notebook: its own wandb.init, add_callback, evaluation afterwards, finish, once more."""
    environment(WANDB_LOG_MODEL="end", WANDB_PROJECT="not-this-one", WANDB_WATCH="gradients")
    wandb.init(project="notebook", name="by hand", tags=["a", "b"], group="g")
    first = wandb.run.id
    trainer = make_trainer(
        HERE / "manual", callbacks=None, report_to="wandb", eval_strategy="no", save_strategy="no"
    )
    callback = RunportCallback()
    trainer.add_callback(callback)
    trainer.train()
    trainer.evaluate()
    wandb.finish()
    trainer.train()
    second = wandb.run.id
    wandb.finish()
    return {**outcome(callback), "runs": [first, second]}


def checkpoints() -> dict[str, Any]:
    """Every checkpoint although the Trainer keeps one; then a resumed training."""
    environment(
        WANDB_LOG_MODEL="checkpoint", WANDB_PROJECT="checkpoints", RUNPORT_LOG_TRAINING_STATE="1"
    )
    callback = RunportCallback()
    where = HERE / "checkpoints"
    make_trainer(
        where, callbacks=[callback], report_to="wandb", run_name="each", save_total_limit=1
    ).train()
    wandb.finish()
    again = RunportCallback("end")
    make_trainer(
        where, callbacks=[again], report_to="wandb", run_name="each", num_train_epochs=4,
        scores=(0.6,),
    ).train(resume_from_checkpoint=True)  # fmt: skip
    wandb.finish()
    return {**outcome(callback), "resumed": outcome(again)["logged"]}


def search() -> dict[str, Any]:
    """Two trials of a hyper-parameter search, as the Trainer runs them."""
    environment(WANDB_LOG_MODEL="true", WANDB_PROJECT="search")
    callback = RunportCallback()
    trainer = make_trainer(
        HERE / "search", callbacks=[callback], report_to="wandb", run_name="sweep"
    )
    for rate in (0.01, 0.02):
        trainer.train(trial={"learning_rate": rate})
    wandb.finish()
    return outcome(callback)


def alone() -> dict[str, Any]:
    """Without report_to: the callback starts the run itself; a second training goes on in it."""
    environment(WANDB_LOG_MODEL="true", WANDB_PROJECT="alone", WANDB_WATCH="all")
    callback = RunportCallback()
    trainer = make_trainer(
        HERE / "alone", callbacks=[callback], report_to="none", run_name="no metrics/of mine"
    )
    trainer.train()
    trainer.train()
    run_id = wandb.run.id
    wandb.finish()
    return {**outcome(callback), "run": run_id}


def nowhere_to_write() -> dict[str, Any]:
    """The model cannot be written for logging; the training's result comes back all the same."""
    environment(WANDB_LOG_MODEL="true", WANDB_PROJECT="nowhere")
    where = HERE / "nowhere"
    (where / "out").mkdir(parents=True)
    (where / "out" / "runport").write_text("a file in the way")
    callback = RunportCallback()
    trainer = make_trainer(where, callbacks=[callback], report_to="wandb", run_name="nowhere")
    steps = trainer.train().global_step
    wandb.finish()
    (failure,) = callback.failures
    error = failure.error.as_dict()
    return {"steps": steps, **error, "kept": failure.directory, "logged": len(callback.logged)}


def not_wanted() -> dict[str, Any]:
    """`false` logs no model; the stock callback's metrics stay."""
    environment(WANDB_PROJECT="unwanted")
    callback = RunportCallback()
    trainer = make_trainer(
        HERE / "unwanted", callbacks=[callback], report_to="wandb", run_name="none"
    )
    trainer.train()
    wandb.finish()
    return outcome(callback)


def switched_off() -> dict[str, Any]:
    """`WANDB_DISABLED` stops the stock callback too, which ignores it by itself."""
    environment(WANDB_DISABLED="true", WANDB_LOG_MODEL="true", WANDB_PROJECT="off")
    callback = RunportCallback()
    trainer = make_trainer(HERE / "off", callbacks=[callback], report_to="wandb", run_name="off")
    steps = trainer.train().global_step
    return {**outcome(callback), "steps": steps, "run": wandb.run is not None}


def main() -> None:
    scenarios = (
        documented, manual_run, checkpoints, search, alone, nowhere_to_write, not_wanted,
        switched_off,
    )  # fmt: skip
    chosen = [s for s in scenarios if not sys.argv[1:] or s.__name__ in sys.argv[1:]]
    sys.stdout.write(json.dumps({scenario.__name__: scenario() for scenario in chosen}) + "\n")


if __name__ == "__main__":
    main()
