"""Train once as the environment says; print the result, what was logged and what was not.

With `kill PID` as arguments, that process (the server) is killed in the middle of the training.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import wandb
from training import make_trainer
from transformers import TrainerCallback

from registry.callback import RunportCallback


class Killer(TrainerCallback):  # type: ignore[misc]
    """Kills the server at step 6."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 6:
            os.kill(self.pid, signal.SIGKILL)


def main() -> None:
    callback = RunportCallback()
    callbacks: list[Any] = [callback]
    if sys.argv[1:2] == ["kill"]:
        callbacks.append(Killer(int(sys.argv[2])))
    trainer = make_trainer(
        Path.cwd() / "once", callbacks=callbacks, report_to="wandb", run_name="once"
    )
    result = trainer.train()
    run = wandb.run
    report = {
        "steps": result.global_step,
        "run": None if run is None else {"offline": run.offline, "disabled": run.disabled},
        "logged": [item.name for item in callback.logged],
        "failures": [
            {"directory": str(item.directory), "error": str(item.error), "code": item.error.code}
            for item in callback.failures
        ],
    }
    sys.stdout.write(json.dumps(report) + "\n")
    sys.stdout.flush()
    if callback.failures:
        os._exit(0)  # the SDK would go on trying to reach the killed server


if __name__ == "__main__":
    main()
