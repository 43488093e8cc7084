"""The command line as people run it: in a process of its own, against a real backend."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from tests.backend_process import BackendProcess, backend_process


@dataclass
class Shell:
    """Runs `registry …` in an environment; keeps nothing."""

    environment: dict[str, str]
    folder: Path
    extra: dict[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "registry", *arguments],
            env={**self.environment, **self.extra},
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def ok(self, *arguments: str) -> str:
        """Run; return the one line on stdout."""
        done = self(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def json(self, schema: type, *arguments: str, status: int = 0) -> object:
        """Run with `--json`; return the document, which must have exactly the schema's fields."""
        done = self(*arguments, "--json")
        assert done.returncode == status, done.stderr
        document = msgspec.json.decode(
            done.stdout, type=schema, dec_hook=lambda _, text: Path(text)
        )
        again = msgspec.json.encode(document, enc_hook=str)
        assert msgspec.json.decode(again) == msgspec.json.decode(done.stdout)
        return document


@pytest.fixture(scope="session")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackendProcess]:
    """One backend for all commands; each module uses a project of its own."""
    with backend_process(tmp_path_factory.mktemp("cli-backend") / "data") as backend:
        yield backend


@pytest.fixture(scope="module")
def shell(
    backend: BackendProcess,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Shell:
    """A home of the module's own."""
    home = tmp_path_factory.mktemp("home")
    return Shell(
        backend.env(
            home,
            WANDB_PROJECT=request.module.__name__.rpartition(".")[2].replace("_", "-"),
            RUNPORT_CACHE_DIR=str(home / "runport"),
            RUNPORT_DATA_DIR=str(home / "runport-data"),
        ),
        home,
    )
