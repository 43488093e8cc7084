"""Fixtures that several packages' tests share, made once for a whole run."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry import Export
from tests.exports import export_directory
from tests.models import tiny_bert
from tests.seq2seq_models import tiny_bart, tiny_t5


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


@pytest.fixture(scope="session")
def seq2seq_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny T5 (`t5`) and a tiny BART (`bart`), as the Trainer leaves them; do not change them."""
    folder = tmp_path_factory.mktemp("seq2seq-models")
    return {"t5": tiny_t5(folder / "t5"), "bart": tiny_bart(folder / "bart")}


@pytest.fixture(scope="session")
def seq2seq_exports(
    seq2seq_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Export]:
    """Their exports, in one cache; do not change them."""
    exports_dir = tmp_path_factory.mktemp("seq2seq-cache") / "exports"
    return {name: export_directory(model, exports_dir) for name, model in seq2seq_models.items()}
