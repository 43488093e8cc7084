"""W&B switched off, offline, unreachable: training goes on and no model is lost."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from tests.backend_process import BackendProcess, backend_process
from tests.registry.callback.conftest import FLOWS, flow


def test_offline_keeps_the_model_for_a_later_sync(
    training_backend: BackendProcess, api: Any, tmp_path: Path
) -> None:
    found = flow(
        training_backend, "once.py", tmp_path,
        WANDB_MODE="offline", WANDB_LOG_MODEL="true", WANDB_PROJECT="synced",
    )  # fmt: skip
    assert found["steps"] == 12
    assert found["run"] == {"offline": True, "disabled": False}
    assert found["logged"] == ["run-once"]
    assert not (tmp_path / "once" / "out" / "runport").exists()
    (offline_run,) = (tmp_path / "runs" / "wandb").glob("offline-run-*")
    subprocess.run(
        [sys.executable, "-m", "wandb", "sync", str(offline_run)],
        cwd=tmp_path,
        env=training_backend.env(tmp_path),
        capture_output=True,
        timeout=120,
        check=True,
    )
    artifact = api.artifact("local/synced/run-once:v0")
    assert set(artifact.aliases) == {"latest", "final"}
    assert "model.safetensors" in {file.name for file in artifact.files()}


def test_of_several_processes_only_one_logs(
    training_backend: BackendProcess, api: Any, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
         str(FLOWS / "once.py")],
        cwd=tmp_path,
        env=training_backend.env(tmp_path, WANDB_LOG_MODEL="true", WANDB_PROJECT="parallel"),
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    reports = [json.loads(r) for r in re.findall(r'^\{"steps".*\}$', done.stdout, re.M)]
    assert [report["steps"] for report in reports] == [6, 6]
    assert sorted(report["logged"] for report in reports) == [[], ["local/parallel/run-once:v0"]]
    assert len(list(api.runs("local/parallel"))) == 1


def test_disabled_mode_touches_nothing(training_backend: BackendProcess, tmp_path: Path) -> None:
    found = flow(
        training_backend, "once.py", tmp_path, WANDB_MODE="disabled", WANDB_LOG_MODEL="true"
    )
    assert found["run"] == {"offline": False, "disabled": True}
    assert (found["steps"], found["logged"], found["failures"]) == (12, [], [])


def test_a_server_that_dies_costs_no_model(tmp_path: Path) -> None:
    with backend_process(tmp_path / "data") as backend:
        assert backend.process
        found = flow(
            backend,
            "once.py",
            tmp_path / "home",
            "kill",
            str(backend.process.pid),
            WANDB_LOG_MODEL="true",
            RUNPORT_UPLOAD_TIMEOUT_S="5",
        )
    assert found["steps"] == 12
    (failure,) = found["failures"]
    assert failure["code"] == "unavailable"
    kept = Path(failure["directory"])
    assert kept.parent == tmp_path / "home" / "once" / "out" / "runport"
    assert load_file(kept / "model.safetensors")
    assert (kept / "tokenizer.json").is_file()
    metadata = json.loads((kept.parent / f"{kept.name}.metadata.json").read_text())
    assert metadata["eval/f1"] == 0.7
