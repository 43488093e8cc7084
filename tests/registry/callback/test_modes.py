"""W&B switched off, offline, unreachable: training goes on and no model is lost."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file

from tests.backend_process import BackendProcess, backend_process
from tests.registry.callback.conftest import flow


def test_offline_keeps_the_model_for_a_later_sync(
    training_backend: BackendProcess, tmp_path: Path
) -> None:
    found = flow(
        training_backend, "once.py", tmp_path, WANDB_MODE="offline", WANDB_LOG_MODEL="true"
    )
    assert found["steps"] == 12
    assert found["run"] == {"offline": True, "disabled": False}
    assert found["logged"] == ["run-once"]
    assert not (tmp_path / "once" / "out" / "runport").exists()
    staged = list((tmp_path / "data" / "artifacts" / "staging").iterdir())
    assert staged
    assert list((tmp_path / "runs").rglob("run-*.wandb"))


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
