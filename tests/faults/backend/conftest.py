"""Backends that are hurt: each test has its own, or shares one that it cannot harm."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.faults.backend.inspection", "tests.faults.backend.workload")

from tests.backend_process import BackendProcess, backend_process  # noqa: E402
from tests.faults.backend.wire import Wire  # noqa: E402


@pytest.fixture(scope="session")
def sturdy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackendProcess]:
    """One backend for tests that only send what must be refused; its folder has a neighbour."""
    root = tmp_path_factory.mktemp("sturdy")
    with backend_process(root / "data") as backend:
        yield backend


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[BackendProcess]:
    """A backend that the test may stop, kill and start again."""
    with backend_process(tmp_path / "data") as backend:
        yield backend


@pytest.fixture
def wire(backend: BackendProcess) -> Iterator[Wire]:
    with Wire(backend) as client:
        yield client
