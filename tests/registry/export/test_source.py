"""Bad model directories: each is refused with its own error before anything is loaded."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry.errors import (
    ExportError,
    IntegrityError,
    NotFoundError,
    RegistryError,
    UnsafeContentError,
    UsageError,
)
from registry.export.safetensors import check_safetensors
from registry.export.source import read_source

Damage = Callable[[Path], None]


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_model, tmp_path / "model")


def edit(name: str, **values: Any) -> Damage:
    def damage(model: Path) -> None:
        path = model / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return damage


def remove(*names: str) -> Damage:
    def damage(model: Path) -> None:
        for name in names:
            (model / name).unlink()

    return damage


def write(name: str, content: bytes) -> Damage:
    return lambda model: (model / name).write_bytes(content) and None


def only_a_pickle(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


def sharded(*names: str) -> Damage:
    def damage(model: Path) -> None:
        (model / "model.safetensors").unlink()
        index = {"weight_map": {f"w{i}": name for i, name in enumerate(names)}}
        (model / "model.safetensors.index.json").write_text(json.dumps(index))

    return damage


BAD: list[tuple[str, Damage, type[RegistryError], str]] = [
    ("no config", remove("config.json"), NotFoundError, "config.json"),
    ("config no json", write("config.json", b"{"), IntegrityError, "config.json"),
    ("config a list", write("config.json", b"[]"), IntegrityError, "config.json"),
    ("deep config", write("config.json", b'{"a":' * 50_000), IntegrityError, "config.json"),
    (
        "auto_map",
        edit("config.json", auto_map={"AutoModel": "x.Y"}),
        UnsafeContentError,
        "auto_map",
    ),
    (
        "nested auto_map",
        edit("config.json", text_config=[{"auto_map": 1}]),
        UnsafeContentError,
        "auto_map",
    ),
    (
        "tokenizer auto_map",
        edit("tokenizer_config.json", auto_map={}),
        UnsafeContentError,
        "tokenizer_config",
    ),
    (
        "internal key",
        edit("config.json", _attn_implementation_internal="x"),
        UnsafeContentError,
        "_internal",
    ),
    (
        "a kernel of the hub",
        edit("config.json", _attn_implementation="someone/kernel"),
        UnsafeContentError,
        "_implementation",
    ),
    ("adapter", write("adapter_config.json", b"{}"), NotFoundError, "adapter"),
    ("quantised", edit("config.json", quantization_config={"bits": 4}), ExportError, "quantised"),
    ("no tokenizer", remove("tokenizer.json"), ExportError, "no tokenizer"),
    ("tokenizer no json", write("tokenizer.json", b"\x80\x04"), IntegrityError, "tokenizer.json"),
    ("empty tokenizer", write("tokenizer.json", b"{}"), IntegrityError, "tokenizer.json"),
    ("another tokenizer", edit("config.json", vocab_size=50), ExportError, "only 50"),
    ("no weights", remove("model.safetensors"), NotFoundError, "no weights"),
    ("a pickle", only_a_pickle, UnsafeContentError, "pickle"),
    (
        "other task",
        edit("config.json", architectures=["BertForNextSentencePrediction"]),
        ExportError,
        "NextSentence",
    ),
    ("no architecture", edit("config.json", architectures=None), ExportError, "none named"),
    (
        "labels with a gap",
        edit("config.json", id2label={"0": "a", "2": "b"}),
        ExportError,
        "id2label",
    ),
    ("labels alike", edit("config.json", id2label={"0": "a", "1": "a"}), ExportError, "same name"),
    ("labels a list", edit("config.json", id2label=["a"]), ExportError, "id2label"),
    ("labels miscounted", edit("config.json", num_labels=2), ExportError, "2 labels"),
    ("escaping shard", sharded("../w.safetensors"), UnsafeContentError, "foreign"),
    ("pickled shard", sharded("w.bin"), UnsafeContentError, "foreign"),
    ("missing shard", sharded("w.safetensors"), IntegrityError, "missing"),
    ("no shards", sharded(), IntegrityError, "names no weight"),
]


@pytest.mark.parametrize(("damage", "kind", "words"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_directories_are_refused(
    model: Path, damage: Damage, kind: type[RegistryError], words: str
) -> None:
    damage(model)
    with pytest.raises(kind, match=words) as caught:
        read_source(model)
    assert type(caught.value) is kind


def test_a_good_directory(model: Path) -> None:
    source = read_source(model)
    assert source.task.name == "text-classification"
    assert source.max_tokens == 64
    assert source.weight_files == ("model.safetensors",)
    assert 0 < source.weights_bytes < (model / "model.safetensors").stat().st_size


def test_an_unknown_task_is_a_usage_error(model: Path) -> None:
    with pytest.raises(UsageError, match="fortune-telling"):
        read_source(model, "fortune-telling")


def header(document: object, data: bytes = b"") -> bytes:
    raw = json.dumps(document).encode()
    return struct.pack("<Q", len(raw)) + raw + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 7,
        b"\xff" * 16,
        struct.pack("<Q", 1 << 40) + b"{}",
        struct.pack("<Q", 4) + b"\x80\x04\x95.",
        header([]),
        header({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 3),
        header({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 5),
        header({"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}),
        header({"w": {"dtype": "F32", "shape": [1]}}),
        header({"w": {"data_offsets": ["0", "4"]}}),
    ],
)
def test_broken_safetensors_headers(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        check_safetensors(path)


def test_a_good_header(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    path.write_bytes(header({"__metadata__": {"format": "pt"}, "w": entry}, b"\0" * 4))
    assert check_safetensors(path) == 4
