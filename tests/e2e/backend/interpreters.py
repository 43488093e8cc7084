"""Python interpreters with the supported SDKs: the oldest, one between, the newest."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.backend_process import REPOSITORY

NEWEST = Path(sys.executable)
OTHERS = ("0.22.0", "0.26.1")


def interpreters() -> list[object]:
    """Parameters for `parametrize`: (interpreter) with the SDK's version as the id."""
    others = [
        pytest.param(REPOSITORY / ".venvs" / f"wandb-{version}" / "bin" / "python", id=version)
        for version in OTHERS
    ]
    return [pytest.param(NEWEST, id="newest"), *others]
