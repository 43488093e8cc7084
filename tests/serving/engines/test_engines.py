"""One suite for the seam, run on every engine; then what each adds."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from registry import Export, IntegrityError, UnsafeContentError
from serving.engines.onnx import open_onnx
from serving.engines.openvino import open_openvino_engine
from serving.engines.protocol import Engine
from serving.engines.torch import open_torch
from serving.errors import InferenceError, LoadError


@pytest.fixture(params=["onnx", "openvino", "torch"])
def engine(
    request: pytest.FixtureRequest,
    tiny_model: Path,
    tiny_export: Export,
    tiny_openvino: Export,
) -> Iterator[Engine]:
    opened: Engine
    if request.param == "onnx":
        opened = open_onnx(tiny_export.path, threads=1)
    elif request.param == "openvino":
        opened = open_openvino_engine(tiny_openvino.path, threads=1, callers=2)
    else:
        opened = open_torch(tiny_model, task="text-classification", threads=1)
    assert opened.name == request.param
    yield opened
    opened.close()


def batch(rows: int, tokens: int, seed: int = 0) -> dict[str, np.ndarray]:
    ids = np.random.default_rng(seed).integers(5, 150, (rows, tokens))
    return {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.zeros_like(ids),
    }


@pytest.mark.parametrize(("rows", "tokens"), [(1, 1), (1, 64), (2, 1), (7, 33), (32, 5)])
def test_any_shape(engine: Engine, rows: int, tokens: int) -> None:
    outputs = engine.run(batch(rows, tokens))
    assert list(outputs) == ["logits"]
    assert outputs["logits"].shape == (rows, 3)
    assert outputs["logits"].dtype == np.float32


def test_the_engines_agree(tiny_model: Path, tiny_export: Export, tiny_openvino: Export) -> None:
    onnx = open_onnx(tiny_export.path, threads=1)
    openvino = open_openvino_engine(tiny_openvino.path, threads=1, callers=1)
    torch = open_torch(tiny_model, task="text-classification", threads=1)
    assert onnx.input_names == torch.input_names == openvino.input_names
    feeds = batch(6, 40)
    feeds["attention_mask"][2, 17:] = 0
    expected = torch.run(feeds)["logits"]
    for engine in (onnx, openvino):
        np.testing.assert_allclose(engine.run(feeds)["logits"], expected, atol=1e-4, rtol=0)


def test_what_the_model_does_not_take_is_left_out(engine: Engine) -> None:
    feeds = batch(1, 4)
    expected = engine.run(feeds)["logits"]
    extra = feeds | {"pixel_values": np.zeros((1, 3))}
    np.testing.assert_array_equal(engine.run(extra)["logits"], expected)


def test_a_missing_input_is_an_error(engine: Engine) -> None:
    feeds = batch(1, 4)
    del feeds["input_ids"]
    with pytest.raises(InferenceError, match="input_ids"):
        engine.run(feeds)


@pytest.mark.parametrize("token", [-1_000, 10**6])
def test_a_token_outside_the_vocabulary_is_an_error(engine: Engine, token: int) -> None:
    feeds = batch(1, 4)
    feeds["input_ids"][0, 1] = token
    with pytest.raises(InferenceError):
        engine.run(feeds)
    assert engine.run(batch(1, 4))


def test_threads_share_one_engine(engine: Engine) -> None:
    expected = {
        seed: engine.run(batch(1 + seed % 3, 9 + seed, seed))["logits"] for seed in range(8)
    }
    wrong: list[int] = []

    def run(seed: int) -> None:
        for _ in range(10):
            found = engine.run(batch(1 + seed % 3, 9 + seed, seed))["logits"]
            if not np.allclose(found, expected[seed], atol=1e-5):
                wrong.append(seed)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_closed_engine_says_so(engine: Engine) -> None:
    engine.close()
    engine.close()
    with pytest.raises(InferenceError, match="closed"):
        engine.run(batch(1, 4))


@pytest.mark.parametrize("name", ["model.onnx", "export.json"])
def test_onnx_runs_only_exports(tiny_export: Export, tmp_path: Path, name: str) -> None:
    directory = shutil.copytree(tiny_export.path, tmp_path / "export")
    (directory / name).unlink()
    with pytest.raises(LoadError, match=name.replace(".", r"\.")):
        open_onnx(directory, threads=1)


@pytest.mark.parametrize("name", ["openvino.xml", "export.json"])
def test_openvino_runs_only_exports(tiny_openvino: Export, tmp_path: Path, name: str) -> None:
    directory = shutil.copytree(tiny_openvino.path, tmp_path / "export")
    (directory / name).unlink()
    with pytest.raises(LoadError, match=name.replace(".", r"\.")):
        open_openvino_engine(directory, threads=1, callers=1)


def test_openvino_weights_that_are_too_short_are_an_error(
    tiny_openvino: Export, tmp_path: Path
) -> None:
    directory = shutil.copytree(tiny_openvino.path, tmp_path / "export")
    weights = directory / "openvino.weights"
    weights.chmod(0o600)
    weights.write_bytes(weights.read_bytes()[:5_000])
    with pytest.raises(IntegrityError, match="openvino"):
        open_openvino_engine(directory, threads=1, callers=1)


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_torch_refuses_pickles(tiny_model: Path, tmp_path: Path) -> None:
    import pickle

    directory = shutil.copytree(tiny_model, tmp_path / "model")
    (directory / "model.safetensors").unlink()
    canary = tmp_path / "canary"
    (directory / "pytorch_model.bin").write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(UnsafeContentError):
        open_torch(directory, task="text-classification", threads=1)
    assert not canary.exists()
