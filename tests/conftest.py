"""Fixtures that several packages' tests share, made once for a whole run."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry import Export
from tests.exports import export_directory
from tests.models import tiny_bert


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT classifier with three labels, as the Trainer leaves it; do not change it."""
    return tiny_bert(tmp_path_factory.mktemp("tiny-model"), labels=("bad", "fine", "good"))


@pytest.fixture(scope="session")
def tiny_export(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """The export of `tiny_model`, in an exports folder of its own; do not change it."""
    return export_directory(tiny_model, tmp_path_factory.mktemp("exports"))


@pytest.fixture(scope="session")
def tiny_openvino(tiny_model: Path, tiny_export: Export) -> Export:
    """The export of `tiny_model` for OpenVINO in fp32, beside `tiny_export`; do not change it."""
    return export_directory(tiny_model, tiny_export.path.parent, engine="openvino")
