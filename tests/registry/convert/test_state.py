"""From what PyTorch read to a safetensors file: names, sharing, kinds, sizes."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from registry.convert import child
from registry.convert.state import check_size, find_tensors
from registry.convert.writer import check_written, write_safetensors
from registry.errors import ConversionError, UnsafeContentError


def written(tensors: dict[str, Any], folder: Path) -> dict[str, torch.Tensor]:
    target = folder / "f.safetensors"
    write_safetensors(tensors, target, "f")
    check_written(tensors, target, "f")
    loaded: dict[str, torch.Tensor] = load_file(target)
    return loaded


def test_shared_strided_empty_and_odd_tensors_come_back_as_they_were(tmp_path: Path) -> None:
    shared = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    tensors = {
        "shared": shared, "tied": shared, "part": shared[1:], "turned": shared.t(),
        "scalar": torch.tensor(3), "none": torch.zeros(0, 4), "flags": torch.tensor([True, False]),
        "half": torch.ones(3, dtype=torch.float16), "brain": torch.ones(3, dtype=torch.bfloat16),
        "odd": torch.tensor([1, 2, 3], dtype=torch.int8), "nan": torch.tensor([float("nan")]),
    }  # fmt: skip
    found = written(tensors, tmp_path)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name].nan_to_num(), tensor.nan_to_num()), name


def test_the_order_of_saving_does_not_matter(tmp_path: Path) -> None:
    tensors = {"b": torch.ones(2), "a": torch.zeros(3, dtype=torch.int8)}
    first, second = tmp_path / "1", tmp_path / "2"
    write_safetensors(tensors, first, "f")
    write_safetensors(dict(reversed(tensors.items())), second, "f")
    assert first.read_bytes() == second.read_bytes()


def test_a_kind_that_safetensors_has_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsafeContentError, match="complex64"):
        write_safetensors({"c": torch.ones(1, dtype=torch.complex64)}, tmp_path / "f", "f")
    assert not (tmp_path / "f").exists()


def test_damage_on_the_way_to_the_disk_is_seen(tmp_path: Path) -> None:
    tensors = {"a": torch.ones(4)}
    write_safetensors(tensors, tmp_path / "f", "f")
    raw = bytearray((tmp_path / "f").read_bytes())
    raw[-1] ^= 1
    (tmp_path / "f").write_bytes(raw)
    with pytest.raises(ConversionError, match="not what was read"):
        check_written(tensors, tmp_path / "f", "f")


def names(loaded: object, *, checkpoint: bool = True) -> tuple[set[str], str]:
    tensors, prefix = find_tensors(loaded, "'f' in m:v0", checkpoint=checkpoint)
    return set(tensors), prefix


W = torch.zeros(1)


@pytest.mark.parametrize(
    ("found", "expected", "prefix"),
    [
        (["bert.a.w", "head.w"], {"bert.a.w", "head.w"}, ""),
        (["model.bert.a.w", "model.head.w"], {"bert.a.w", "head.w"}, "model."),
        (["net._orig_mod.bert.w", "net._orig_mod.h.w"], {"bert.w", "h.w"}, "net._orig_mod."),
        (["module.net.bert.w", "module.net.h.w"], {"bert.w", "h.w"}, "module.net."),
        (["layer.weight", "layer.bias"], {"layer.weight", "layer.bias"}, ""),
        (["model.bert.w", "loss.w"], {"model.bert.w", "loss.w"}, ""),
    ],
)
def test_a_uniform_prefix_is_taken_off(found: list[str], expected: set[str], prefix: str) -> None:
    assert names({"state_dict": dict.fromkeys(found, W), "epoch": 3}) == (expected, prefix)


def test_plain_weights_keep_their_names() -> None:
    assert names({"model.a.w": W}, checkpoint=False) == ({"model.a.w"}, "")
    with pytest.raises(UnsafeContentError, match="no plain weights"):
        names({"state_dict": {"a": W}}, checkpoint=False)


@pytest.mark.parametrize(
    "loaded",
    [
        {}, [W], W, {"a": 1}, {"a": W, "b": "text"}, {1: W}, {"state_dict": {"a": [W]}},
        {"a": torch.zeros(2, 2).to_sparse()}, {"a": torch.zeros(1, device="meta")},
    ],
)  # fmt: skip
def test_what_is_no_mapping_of_names_to_tensors_is_refused(loaded: object) -> None:
    with pytest.raises(UnsafeContentError, match="no plain weights"):
        names(loaded)


def test_a_few_bytes_repeated_are_refused() -> None:
    check_size({"a": torch.zeros(100)}, 400, "f")
    with pytest.raises(UnsafeContentError, match="would take"):
        check_size({"a": torch.zeros(1).expand(10**12)}, 400, "f")


@pytest.mark.parametrize(
    ("torch_module", "words"),
    [(None, "needs torch"), (types.SimpleNamespace(__version__="2.9.1"), "CVE-2026-24747")],
)
def test_without_a_safe_torch_nothing_is_read(
    monkeypatch: pytest.MonkeyPatch, torch_module: object, words: str
) -> None:
    monkeypatch.setitem(sys.modules, "torch", torch_module)
    with pytest.raises(ConversionError, match=words):
        child.import_torch(with_transformers=False)
