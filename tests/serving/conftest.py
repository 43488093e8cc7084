"""Two small real models with their exports, made once a session."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import huggingface_hub.constants
import pytest

import registry
from tests.generation_models import TinyDecoders
from tests.models import tiny_bert
from tests.serving.sense_models import SenseModels
from tests.serving.task_models import TaskModels

LABELS = ("negative", "positive", "neutral")


@dataclass(frozen=True)
class TinyModel:
    """A model as it was logged, its export, and the cache that has both."""

    snapshot: Path
    export: Path
    cache: Path


def _make(root: Path, name: str, seed: int) -> TinyModel:
    snapshot = tiny_bert(root / name, labels=LABELS, seed=seed)
    settings = registry.Settings(cache_dir=root / "cache", data_dir=root / "data")
    pulled = registry.pull(str(snapshot), settings=settings)
    # Addressed by content: whoever pulls the same files finds this export.
    exports_dir = settings.cache_dir / "exports"
    made = registry.export_model(pulled.path, digest=pulled.digest, exports_dir=exports_dir)
    return TinyModel(snapshot, made.path, settings.cache_dir)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[TinyModel, TinyModel]:
    """Two versions of one model that answer differently."""
    root = tmp_path_factory.mktemp("models")
    return _make(root, "one", 1), _make(root, "two", 2)


@pytest.fixture(autouse=True)
def _hub_clients_reach_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test run is offline by HF_HUB_OFFLINE, which would keep InferenceClient from loopback."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


@pytest.fixture(scope="session")
def tiny_decoders(tmp_path_factory: pytest.TempPathFactory) -> TinyDecoders:
    """Tiny decoders that let texts grow, each with its export."""
    return TinyDecoders(tmp_path_factory.mktemp("decoders"))


@pytest.fixture(scope="session")
def task_models(tmp_path_factory: pytest.TempPathFactory) -> TaskModels:
    """A tiny model with its export for each task but text classification."""
    return TaskModels(tmp_path_factory.mktemp("task-models"))


@pytest.fixture(scope="session")
def sense_models(tmp_path_factory: pytest.TempPathFactory) -> SenseModels:
    """Tiny models that hear and see, each with its export."""
    return SenseModels(tmp_path_factory.mktemp("sense-models"))
