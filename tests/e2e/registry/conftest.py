"""A real backend with artifacts that the real SDK logged, and the command line on it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.backend_process import REPOSITORY, BackendProcess, backend_process

PROJECT = "road"


@dataclass
class CommandLine:
    """`registry …` in a process of its own, as a user runs it."""

    backend: BackendProcess
    environment: dict[str, str]

    def __call__(self, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "registry", *arguments],
            env={**self.environment, **extra},
            cwd=self.environment["HOME"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def json(self, *arguments: str, **extra: str) -> Any:
        done = self(*arguments, "--json", **extra)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="session")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackendProcess]:
    """A backend with the artifacts of flow.py; tests do not stop it."""
    root = tmp_path_factory.mktemp("registry")
    with backend_process(root / "data") as backend:
        subprocess.run(
            [sys.executable, str(Path(__file__).with_name("flow.py")), PROJECT, str(root / "m")],
            env=backend.env(root / "home"),
            check=True,
            timeout=180,
        )
        yield backend


@pytest.fixture
def registry(logged: BackendProcess, tmp_path: Path) -> CommandLine:
    environment = logged.env(
        tmp_path / "home",
        RUNPORT_CACHE_DIR=str(tmp_path / "cache"),
        RUNPORT_DATA_DIR=str(tmp_path / "data"),
        WANDB_PROJECT=PROJECT,
        PYTHONPATH=str(REPOSITORY),
    )
    return CommandLine(logged, environment)
