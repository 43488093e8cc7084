"""Engines and precisions that were asked for by name: what serves, and that nothing else does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import registry
from serving.prepare.engine import Choice, choose_engine
from serving.worker.host import open_model
from serving.worker.messages import WorkerPlan
from tests.exports import digest_of
from tests.serving.conftest import TinyModel


def choose(model: TinyModel, wanted: str, precision: str = "auto") -> Choice:
    settings = registry.Settings(cache_dir=model.cache, data_dir=model.cache)
    pulled = registry.pull(str(model.snapshot), settings=settings)
    return choose_engine(
        pulled.path,
        pulled.digest,
        wanted=wanted,
        precision=precision,
        exports_dir=model.cache / "exports",
    )


def answer(choice: Choice) -> object:
    plan = WorkerPlan(str(choice.directory), choice.task, choice.engine)
    task, engine = open_model(plan)
    rows = task.preprocess("a good film", {"top_k": None})
    outputs = task.split(rows, engine.run(task.collate(rows, engine.input_names)))
    found = task.postprocess(rows, outputs, {"top_k": None})
    engine.close()
    return found


def test_openvino_serves_what_it_is_asked_to(models: tuple[TinyModel, TinyModel]) -> None:
    choice = choose(models[0], "openvino")
    assert (choice.engine, choice.precision) == ("openvino", "fp32")
    again = choose(models[0], "openvino", "fp32")
    assert (again.directory, again.reason) == (choice.directory, "a valid export was in the cache")
    usual = choose(models[0], "onnx")
    assert (usual.engine, usual.precision) == ("onnx", "fp32")
    ours, theirs = answer(choice), answer(usual)
    assert isinstance(ours, list)
    assert isinstance(theirs, list)
    assert [one["label"] for one in ours] == [one["label"] for one in theirs]
    scores = [[one["score"] for one in found] for found in (ours, theirs)]
    np.testing.assert_allclose(*scores, atol=1e-4)


def test_an_exported_folder_is_derived_from(
    models: tuple[TinyModel, TinyModel], tmp_path: Path
) -> None:
    folder = models[0].export
    digest = digest_of(folder)
    choice = choose_engine(folder, digest, wanted="openvino", exports_dir=tmp_path)
    assert (choice.engine, choice.precision) == ("openvino", "fp32")
    assert choice.directory.parent == tmp_path
    assert registry.find_export(tmp_path, digest, None, "fp32", "openvino") is not None
    derived = choice.directory
    with pytest.raises(registry.UnavailableError, match="openvino fp32"):
        choose_engine(derived, digest, wanted="onnx", exports_dir=tmp_path)


def test_what_cannot_run_here_is_not_replaced_by_anything_else(
    models: tuple[TinyModel, TinyModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.export.candidates._cpu_flags", frozenset)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    with pytest.raises(registry.UnavailableError, match="avx512_bf16") as caught:
        choose(models[0], "auto", "bf16")
    assert "--precision" in caught.value.hint


@pytest.mark.parametrize(
    ("wanted", "precision"), [("onnx", "bf16"), ("torch", "bf16"), ("auto", "int3")]
)
def test_what_there_is_not(
    models: tuple[TinyModel, TinyModel], wanted: str, precision: str
) -> None:
    with pytest.raises(registry.UsageError):
        choose(models[0], wanted, precision)
