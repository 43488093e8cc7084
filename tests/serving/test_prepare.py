"""Which engine serves what, and how the preparing child tells it."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

import psutil
import pytest

import registry
from registry.cache import open_store
from serving.prepare.engine import EXPORTER_MODULES, choose_engine
from serving.prepare.parent import prepare_in_child
from serving.prepare.plan import Prepared, PrepareError
from tests.serving.conftest import TinyModel
from tests.serving.task_models import TaskModels

DIGEST = "d" * 64


def without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """Have these modules look as if they were not installed."""
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)


def test_a_cached_export_is_served(
    models: tuple[TinyModel, TinyModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, *EXPORTER_MODULES)
    settings = registry.Settings(cache_dir=models[0].cache, data_dir=models[0].cache)
    pulled = registry.pull(str(models[0].snapshot), settings=settings)
    for wanted in ("auto", "onnx"):
        choice = choose_engine(
            pulled.path, pulled.digest, wanted=wanted, exports_dir=models[0].cache / "exports"
        )
        assert choice.engine == "onnx"
        assert choice.directory == models[0].export
        assert choice.task == "text-classification"


def test_of_several_exports_the_one_for_the_task_is_served(task_models: TaskModels) -> None:
    model = task_models.model("feature-extraction")
    exports = {
        task: task_models.export(task) for task in ("feature-extraction", "sentence-similarity")
    }
    digest = exports["feature-extraction"].digest
    assert exports["sentence-similarity"].digest == digest
    for task, export in exports.items():
        wanted = None if task == "feature-extraction" else task
        choice = choose_engine(
            model, digest, wanted="onnx", exports_dir=export.path.parent, task=wanted
        )
        assert (choice.task, choice.directory) == (task, export.path)


def test_an_export_is_served_as_it_is(models: tuple[TinyModel, TinyModel], tmp_path: Path) -> None:
    choice = choose_engine(models[0].export, DIGEST, wanted="auto", exports_dir=tmp_path)
    assert (choice.engine, choice.directory) == ("onnx", models[0].export)
    with pytest.raises(registry.UnavailableError, match="no weights for torch"):
        choose_engine(models[0].export, DIGEST, wanted="torch", exports_dir=tmp_path)


def test_without_the_exporter_torch_serves_and_says_why(
    models: tuple[TinyModel, TinyModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "onnxscript")
    snapshot = models[0].snapshot
    choice = choose_engine(snapshot, DIGEST, wanted="auto", exports_dir=tmp_path)
    assert (choice.engine, choice.directory) == ("torch", snapshot)
    assert "onnxscript" in choice.reason
    with pytest.raises(registry.ExportError, match="onnxscript"):
        choose_engine(snapshot, DIGEST, wanted="onnx", exports_dir=tmp_path)


def test_with_neither_there_is_an_error_with_both_ways_out(
    models: tuple[TinyModel, TinyModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, *EXPORTER_MODULES)
    for wanted in ("auto", "onnx", "torch"):
        with pytest.raises(registry.ExportError) as caught:
            choose_engine(models[0].snapshot, DIGEST, wanted=wanted, exports_dir=tmp_path)
        assert "torch" in caught.value.message
        assert "runport[export]" in caught.value.hint


def test_a_model_that_cannot_be_exported_is_refused_as_onnx(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["NobodysModel"]}', "utf-8")
    with pytest.raises(registry.RegistryError):
        choose_engine(tmp_path, DIGEST, wanted="onnx", exports_dir=tmp_path / "exports")


def in_child(reference: str, cache: Path, **options: float) -> Prepared:
    environment = {**os.environ, "RUNPORT_CACHE_DIR": str(cache), "RUNPORT_OFFLINE": "1"}
    timeout_s = options.get("timeout_s", 120)
    return asyncio.run(
        prepare_in_child(reference, engine="auto", environment=environment, timeout_s=timeout_s)
    )


def test_the_child_tells_what_it_made(models: tuple[TinyModel, TinyModel], tmp_path: Path) -> None:
    copy = tmp_path / "my-model"
    shutil.copytree(models[0].export, copy)
    prepared = in_child(str(copy), tmp_path / "cache")
    assert prepared.engine == "onnx"
    assert prepared.pinned_name == f"my-model@{prepared.digest[:12]}"
    assert not prepared.followed
    # A copy in the cache: what was hashed is what is loaded.
    assert Path(prepared.directory).is_relative_to(tmp_path / "cache")
    (copy / "config.json").chmod(0o600)
    (copy / "config.json").write_text("{}", "utf-8")
    with pytest.raises(PrepareError, match="not those"):
        in_child(str(copy), tmp_path / "cache")


def test_the_child_tells_the_registry_s_own_error(tmp_path: Path) -> None:
    with pytest.raises(PrepareError) as caught:
        in_child("run-bert:v0", tmp_path)
    assert (caught.value.code, caught.value.exit_code) == ("offline", 7)
    assert caught.value.transient
    assert caught.value.hint
    with pytest.raises(PrepareError) as caught:
        in_child("one/two/three/four", tmp_path)
    assert (caught.value.code, caught.value.transient) == ("invalid-reference", False)


def test_a_preparation_that_fails_holds_nothing(tiny_model: Path, tmp_path: Path) -> None:
    """Its lease was the server's, and so stayed as long as the server, which is this process."""
    copy = shutil.copytree(tiny_model, tmp_path / "model")
    (copy / "tokenizer.json").unlink()
    with pytest.raises(PrepareError, match="tokenizer"):
        in_child(str(copy), tmp_path / "cache")
    settings = registry.Settings(cache_dir=tmp_path / "cache", data_dir=tmp_path)
    assert open_store(settings).claims.held() == set()
    assert not in_use(tmp_path / "cache")


def in_use(cache: Path) -> list[str]:
    """The leases of living processes."""
    return [path.name for path in (cache / "leases").iterdir() if f".{os.getpid()}." in path.name]


def test_a_child_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    before = set(psutil.Process().children())
    with pytest.raises(PrepareError, match="took longer"):
        in_child("run-bert:v0", tmp_path, timeout_s=0.01)
    assert not set(psutil.Process().children()) - before
