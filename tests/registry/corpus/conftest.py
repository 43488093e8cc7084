"""A real backend that holds what every trainer logs, made once."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from registry.config import Settings
from tests.backend_process import BackendProcess, backend_process, run_flow

FLOW = Path(__file__).parent / "flows" / "log_corpus.py"


@dataclass(frozen=True)
class Corpus:
    """What was logged, and how to ask for it.

    Attributes:
        backend: the server.
        runs: ids of runs, by who made them.
        settings: with a cache of its own.
    """

    backend: BackendProcess
    runs: dict[str, Any]
    settings: Settings


@pytest.fixture(scope="package")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    home = tmp_path_factory.mktemp("corpus")
    with (
        backend_process(home / "data") as backend,
        pytest.MonkeyPatch.context() as patch,
    ):
        output = run_flow(
            backend, Path(sys.executable), FLOW, home / "flow", timeout_s=280,
            RUNPORT_CACHE_DIR=str(home / "flow-cache"),
        )  # fmt: skip
        for name, value in backend.env(home / "asking").items():
            if name.startswith("WANDB_"):
                patch.setenv(name, value)
        settings = Settings(
            cache_dir=home / "cache", data_dir=home / "own", entity="local", project="corpus",
            base_url=backend.base_url,
        )  # fmt: skip
        yield Corpus(backend, json.loads(output.splitlines()[-1]), settings)
