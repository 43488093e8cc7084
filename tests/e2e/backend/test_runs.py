"""Runs with the unmodified SDK: the oldest supported one, one between, and the newest."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.backend_process import BackendProcess, run_flow
from tests.e2e.backend.interpreters import interpreters

FLOWS = Path(__file__).parent / "flows"


@pytest.mark.parametrize("python", interpreters())
@pytest.mark.parametrize("flow", ["runs_lifecycle", "runs_special"])
def test_flow(shared_backend: BackendProcess, python: Path, flow: str, tmp_path: Path) -> None:
    project = f"{flow}-{python.parents[1].name.strip('.')}"
    run_flow(shared_backend, python, FLOWS / f"{flow}.py", tmp_path, project)
