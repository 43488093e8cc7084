"""A real backend, and what the flow scripts beside it left there."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backend_process import BackendProcess, backend_process, run_flow

FLOWS = Path(__file__).parent / "flows"


def flow(
    backend: BackendProcess, name: str, home: Path, *arguments: str, **environment: str
) -> dict[str, Any]:
    """Run a flow script and return the JSON of its last line."""
    home.mkdir(parents=True, exist_ok=True)
    output = run_flow(
        backend, Path(sys.executable), FLOWS / name, home, *arguments, timeout_s=280, **environment
    )
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


@pytest.fixture(scope="package")
def training_backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackendProcess]:
    """One backend for all trainings; each uses a project of its own."""
    with backend_process(tmp_path_factory.mktemp("training-backend") / "data") as backend:
        yield backend


@pytest.fixture(scope="package")
def contract(
    training_backend: BackendProcess, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What flows/contract.py logged."""
    return flow(training_backend, "contract.py", tmp_path_factory.mktemp("contract"))


@pytest.fixture(scope="package")
def api(
    training_backend: BackendProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """The SDK's public API on that backend; caches of its own."""
    import wandb

    with pytest.MonkeyPatch.context() as patch:
        for name, value in training_backend.env(tmp_path_factory.mktemp("api")).items():
            if name.startswith("WANDB_"):
                patch.setenv(name, value)
        yield wandb.Api(
            overrides={"base_url": training_backend.base_url}, api_key=training_backend.api_key
        )
