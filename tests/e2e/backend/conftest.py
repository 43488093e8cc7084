"""Fixtures that give tests a real backend: one shared by the session, one of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backend_process import BackendProcess, backend_process


@pytest.fixture(scope="session")
def shared_backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackendProcess]:
    """One backend for the whole session; tests use projects of their own."""
    with backend_process(tmp_path_factory.mktemp("backend") / "data") as backend:
        yield backend


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[BackendProcess]:
    """A backend that the test may stop, kill and start again."""
    with backend_process(tmp_path / "data") as backend:
        yield backend
