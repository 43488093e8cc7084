"""docs/training.md stays true: its example runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from registry.config import TrainingSettings
from tests.backend_process import REPOSITORY, BackendProcess

PAGE = (REPOSITORY / "docs" / "training.md").read_text("utf-8")


def test_the_example_logs_what_it_says(training_backend: BackendProcess, tmp_path: Path) -> None:
    (example,) = (b for b in re.findall(r"```python\n(.*?)```", PAGE, re.S) if "wandb.finish" in b)
    script = tmp_path / "example.py"
    script.write_text(example, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=training_backend.env(tmp_path / "home"),
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.splitlines()[-1] == "local/sentiment/run-bert-base-high-lr:v0"


def test_the_table_names_every_variable_and_default() -> None:
    for name in ("WANDB_LOG_MODEL", "WANDB_PROJECT", "WANDB_WATCH", "WANDB_DISABLED",
                 "RUNPORT_LOG_TRAINING_STATE", "RUNPORT_UPLOAD_TIMEOUT_S"):  # fmt: skip
        assert f"| `{name}` |" in PAGE
    settings = TrainingSettings()
    assert f"`{settings.project}` when not set" in PAGE
    assert f"confirmed; {settings.upload_timeout_s} |" in PAGE
