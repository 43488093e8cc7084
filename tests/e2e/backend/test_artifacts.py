"""Artifacts with the unmodified SDK: the oldest supported one, one between, and the newest."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.backend_process import BackendProcess, run_flow
from tests.e2e.backend.interpreters import interpreters
from tests.e2e.backend.reviewed_unknown import unreviewed

FLOWS = Path(__file__).parent / "flows"


@pytest.mark.parametrize("python", interpreters())
@pytest.mark.parametrize("flow", ["lifecycle", "lineage", "command_line", "concurrent"])
def test_flow(shared_backend: BackendProcess, python: Path, flow: str, tmp_path: Path) -> None:
    project = f"artifacts-{flow}-{python.parents[1].name.strip('.')}"
    run_flow(
        shared_backend,
        python,
        FLOWS / f"artifacts_{flow}.py",
        tmp_path,
        WANDB_PROJECT=project,
        WANDB_ENTITY="local",
    )
    assert unreviewed(shared_backend.unknown()) == []
