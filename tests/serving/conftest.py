"""Two small real models with their exports, made once a session."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pytest

import registry
from tests.models import tiny_bert

LABELS = ("negative", "positive", "neutral")


@dataclass(frozen=True)
class TinyModel:
    """A model as it was logged, and its export."""

    snapshot: Path
    export: Path


def _make(root: Path, name: str, seed: int) -> TinyModel:
    snapshot = tiny_bert(root / name, labels=LABELS, seed=seed)
    digest = hashlib.sha256(name.encode()).hexdigest()
    made = registry.export_model(snapshot, digest=digest, exports_dir=root / "exports")
    return TinyModel(snapshot, made.path)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[TinyModel, TinyModel]:
    """Two versions of one model that answer differently."""
    root = tmp_path_factory.mktemp("models")
    return _make(root, "one", 1), _make(root, "two", 2)
