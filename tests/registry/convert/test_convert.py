"""Versions with pickled weights, pulled with permission: real pickles, real child processes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import registry
from registry.cli.inspect import describe
from registry.config import Settings
from registry.convert.convert import Converter
from registry.errors import ConversionError, IntegrityError, RegistryError, UnsafeContentError
from registry.pull import pull, pull_cached
from registry.store import Store
from registry.store.prune import Budget
from registry.verify import verify
from tests.registry.file_server import file_server
from tests.registry.memory_hub import MemoryHub


@pytest.fixture
def hub() -> Iterator[MemoryHub]:
    with file_server() as server:
        yield MemoryHub(server)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        cache_dir=tmp_path / "cache", data_dir=tmp_path / "data", project="p", entity="me",
        allow_pickle=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def weights(tiny_model: Path) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = load_file(tiny_model / "model.safetensors")
    return loaded


def pickled(value: Any, folder: Path, **options: Any) -> bytes:
    path = folder / "made.bin"
    torch.save(value, path, **options)
    return path.read_bytes()


def beside(model: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in model.iterdir() if path.suffix != ".safetensors"
    }


def leavings(settings: Settings) -> list[str]:
    """What a refused conversion must not leave."""
    root = settings.cache_dir
    found = [*root.glob("conversions/*"), *root.glob("ingest/*"), *root.rglob("*.safetensors")]
    return [str(path) for path in (*found, *root.rglob("*converted*.json"))]


def test_converted_once_used_by_all_and_repaired(
    hub: MemoryHub,
    settings: Settings,
    weights: dict[str, torch.Tensor],
    tiny_model: Path,
    tmp_path: Path,
) -> None:
    raw = pickled(weights, tmp_path)
    hub.log("run-bert", {**beside(tiny_model), "pytorch_model.bin": raw, "tf_model.h5": b"x"})
    careful = replace(settings, allow_pickle=False)
    with pytest.raises(UnsafeContentError, match="holds a pickle"):
        pull("run-bert:v0", settings=careful, hub=hub)

    first = pull("run-bert:v0", settings=settings, hub=hub)
    assert first.conversion is not None
    assert first.conversion.files == {"pytorch_model.bin": "model.safetensors"}
    assert first.conversion.tensors == len(weights)
    found = load_file(first.path / "model.safetensors")
    assert all(torch.equal(found[name], weights[name]) for name in weights)
    assert {p.name for p in first.path.iterdir()} == {*beside(tiny_model), "model.safetensors"}
    assert registry.read_source(first.path).weights_bytes > 0
    # What was logged stays as it was, under its own digest.
    logged = settings.cache_dir / "snapshots" / first.conversion.snapshot
    assert (logged / "pytorch_model.bin").read_bytes() == raw

    # What is safetensors now needs no permission, no server and no torch.
    asked = hub.questions
    for again in (pull("run-bert:v0", settings=careful), pull_cached("run-bert:v0", careful)):
        assert again is not None
        assert (again.digest, again.cached, again.conversion) == (
            first.digest, True, first.conversion,
        )  # fmt: skip
    assert hub.questions == asked
    for digest in (first.digest, first.conversion.snapshot):
        assert pull(f"run-bert:v0@{digest}", settings=careful).digest == first.digest
    facts = describe(first.version, settings)
    assert facts["cache"]["conversion"]["snapshot"] == first.conversion.snapshot

    target = first.path / "model.safetensors"
    target.chmod(0o600)
    target.write_bytes(target.read_bytes()[:-1] + b"?")
    done = verify(settings=careful, hub=hub)
    assert done.sound, done.problems
    assert done.problems
    assert load_file(target).keys() == weights.keys()

    store = Store(settings.cache_dir, "")
    store.prune(Budget(max_bytes=0, leftover_age_s=0))
    assert not leavings(settings)


def test_the_same_bytes_are_converted_once(
    hub: MemoryHub, settings: Settings, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    raw = pickled({"state_dict": {f"net.{k}": v for k, v in weights.items()}}, tmp_path)
    hub.log("a", {"model.ckpt": raw})
    hub.log("b", {"model.ckpt": raw})
    first = pull("a:v0", settings=settings, hub=hub)
    assert first.conversion is not None
    assert first.conversion.prefix == "net."
    note = settings.cache_dir / "conversions" / f"{first.conversion.snapshot}.json"
    before = note.stat().st_mtime_ns
    second = pull("b:v0", settings=settings, hub=hub)
    assert second.path == first.path
    assert note.stat().st_mtime_ns == before
    # Tensors by name: nothing says which architecture they belong to.
    with pytest.raises(registry.NotFoundError, match=r"no config\.json"):
        registry.read_source(first.path)


def test_shards_and_their_index(
    settings: Settings, weights: dict[str, torch.Tensor], tiny_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name, raw in beside(tiny_model).items():
        (folder / name).write_bytes(raw)
    names = sorted(weights)
    parts = {
        "pytorch_model-00001-of-00002.bin": names[:9],
        "pytorch_model-00002-of-00002.bin": names[9:],
    }
    for file, inside in parts.items():
        torch.save({name: weights[name] for name in inside}, folder / file)
    index = {"weight_map": {name: file for file, inside in parts.items() for name in inside}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    pulled = pull(str(folder), settings=settings)
    source = registry.read_source(pulled.path)
    assert source.weight_files == (
        "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
    )  # fmt: skip
    assert not (pulled.path / "pytorch_model.bin.index.json").exists()
    assert pull(str(folder), settings=settings).digest == pulled.digest


class Runs:
    """Pickles as a command to the shell."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self.mark}",))


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_would_run_something_is_refused_and_runs_nothing(
    hub: MemoryHub, settings: Settings, tmp_path: Path, legacy: bool
) -> None:
    mark = tmp_path / "ran"
    value = {"a": torch.zeros(2), "x": Runs(mark)}
    raw = pickled(value, tmp_path, _use_new_zipfile_serialization=not legacy)
    hub.log("evil", {"config.json": b"{}", "pytorch_model.bin": raw})
    with pytest.raises(UnsafeContentError, match=r"posix\.system.*Nothing of it was run"):
        pull("evil:v0", settings=settings, hub=hub)
    assert not mark.exists()
    assert not leavings(settings)


def test_a_cut_file_and_a_conversion_that_takes_too_long(
    hub: MemoryHub, settings: Settings, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    raw = pickled(weights, tmp_path, _use_new_zipfile_serialization=False)
    hub.log("cut", {"config.json": b"{}", "pytorch_model.bin": raw[:-1000]})
    with pytest.raises(IntegrityError, match="cannot be read"):
        pull("cut:v0", settings=settings, hub=hub)
    everything = registry.Selection(everything=True)
    hub.log("slow", {"config.json": b"{}", "pytorch_model.bin": raw})
    bytes_only = pull("slow:v0", settings=settings, selection=everything, hub=hub)
    assert bytes_only.conversion is None
    assert (bytes_only.path / "pytorch_model.bin").read_bytes() == raw
    hasty = Converter(Store(settings.cache_dir, ""), registry.Selection(), timeout_s=0.001)
    files = {p.name: registry_sha256(p) for p in bytes_only.path.iterdir()}
    with pytest.raises(ConversionError, match="took longer"):
        hasty.convert(bytes_only, files)
    assert not leavings(settings)


def registry_sha256(path: Path) -> str:
    from registry.store.blobs import sha256_of

    return sha256_of(path)


def test_a_checkpoint_that_is_not_the_configured_model_is_refused(
    settings: Settings, weights: dict[str, torch.Tensor], tiny_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name, raw in beside(tiny_model).items():
        (folder / name).write_bytes(raw)
    head = {f"net.{name}": weights[name] for name in list(weights)[:3]}
    torch.save({"state_dict": head}, folder / "model.ckpt")
    with pytest.raises(RegistryError, match="is no BertForSequenceClassification: it lacks"):
        pull(str(folder), settings=settings)
    torch.save({"state_dict": {f"net.{k}": v for k, v in weights.items()}}, folder / "model.ckpt")
    pulled = pull(str(folder), settings=settings)
    assert load_file(pulled.path / "model.safetensors").keys() == weights.keys()
