"""An open backend without a server around it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.backend.parts import default_parts
from registry.backend.service import Backend, open_backend
from registry.backend.settings import BackendSettings


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Backend]:
    with open_backend(BackendSettings(tmp_path / "data"), default_parts()) as backend:
        yield backend
