from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.content import Selection, check_content, check_paths, path_problem, plan_files
from registry.errors import IntegrityError, UnsafeContentError
from registry.versions import Digest, FileEntry


def entry(path: str, size_bytes: int = 10, reference: str | None = None) -> FileEntry:
    return FileEntry(path, size_bytes, Digest("md5", "0" * 32), reference)


CHECKPOINT = [
    entry(path)
    for path in (
        "config.json", "model.safetensors", "tokenizer.json", "vocab.txt", "README.md",
        "optimizer.pt", "scheduler.pt", "rng_state_0.pth", "training_args.bin", "pytorch_model.bin",
        "flax_model.msgpack", "events.out.tfevents.1.2",
    )
]  # fmt: skip


def test_serving_takes_what_it_needs_and_says_what_it_left() -> None:
    plan = plan_files("x", CHECKPOINT, Selection())
    assert [file.path for file in plan.wanted] == [
        "config.json", "model.safetensors", "tokenizer.json", "vocab.txt", "README.md",
    ]  # fmt: skip
    assert plan.saved_bytes == 70
    assert {file.reason for file in plan.skipped} == {
        "training state",
        "the same weights are there as safetensors",
    }


def test_all_takes_everything_as_bytes() -> None:
    assert plan_files("x", CHECKPOINT, Selection(everything=True)).skipped == ()


def test_patterns_choose() -> None:
    plan = plan_files("x", CHECKPOINT, Selection(include=("*.json",), exclude=("tokenizer*",)))
    assert [file.path for file in plan.wanted] == ["config.json"]
    assert Selection().key != Selection(include=("a",)).key != Selection(exclude=("a",)).key


@pytest.mark.parametrize(
    ("file", "flag"),
    [
        (entry("pytorch_model.bin"), "--all"),
        (entry("model.ckpt"), "--exclude"),
        (entry("model.pkl"), "--exclude"),
        (entry("modeling_bert.py"), "--exclude"),
        (entry("op.so"), "--exclude"),
        (entry("data.bin", reference="s3://bucket/data.bin"), "--exclude"),
        (entry("data", reference="file:///etc/passwd"), "--exclude"),
        (entry("data", reference="http://169.254.169.254/"), "--exclude"),
    ],
)
def test_unsafe_files_are_refused_by_name_with_the_flag(file: FileEntry, flag: str) -> None:
    with pytest.raises(UnsafeContentError, match=file.path) as caught:
        plan_files("x", [entry("config.json"), file], Selection())
    assert flag in caught.value.hint


def test_code_and_references_are_refused_even_with_all() -> None:
    for file in (entry("modeling.py"), entry("w", reference="s3://b/w")):
        with pytest.raises(UnsafeContentError):
            plan_files("x", [file], Selection(everything=True))


@pytest.mark.parametrize(
    "path",
    ["", "/etc/passwd", "../up", "a/../../b", "a/./b", "a//b", "a/", "a\\b", "a\x00b", "a\nb",
     "x" * 256, "/".join(["d" * 200] * 6), "\ud800"],
)  # fmt: skip
def test_escaping_and_impossible_paths_are_refused(path: str) -> None:
    with pytest.raises(UnsafeContentError):
        check_paths("x", [path])


def test_a_file_cannot_be_a_folder_too() -> None:
    with pytest.raises(UnsafeContentError, match="folder"):
        check_paths("x", ["a", "a/b"])
    with pytest.raises(UnsafeContentError, match="twice"):
        check_paths("x", ["a", "a"])


@given(st.text(max_size=60) | st.text("./\\%2e\x00ab", max_size=20))
def test_whatever_passes_stays_beneath_the_root(path: str) -> None:
    if path_problem(path) is None:
        root = Path("/root/of/artifact")
        resolved = Path(*root.parts, *path.split("/"))
        assert root in resolved.parents
        assert ".." not in resolved.parts


def safetensors(payload: bytes = b"") -> bytes:
    header = b'{"__metadata__":{}}'
    return struct.pack("<Q", len(header)) + header + payload


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("name", ["model.safetensors", "vocab.txt", "config.json", "a.onnx"])
def test_a_pickle_under_any_name_is_refused_and_not_run(tmp_path: Path, name: str) -> None:
    canary, file = tmp_path / "canary", tmp_path / "file"
    file.write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(UnsafeContentError, match=name):
        check_content("x", name, file)
    assert not canary.exists()


@pytest.mark.parametrize(
    "raw", [b"", b"{}", struct.pack("<Q", 2**60) + b"{}", safetensors()[:12], b"PK\x03\x04" * 10]
)
def test_broken_safetensors_are_refused(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "file"
    file.write_bytes(raw)
    with pytest.raises(UnsafeContentError):
        check_content("x", "model.safetensors", file)


@pytest.mark.parametrize(
    "document",
    [
        {"auto_map": {"AutoModel": "modeling.Evil"}},
        {"text_config": {"auto_map": {}}},
        {"_attn_implementation_internal": "evil/repo"},
        {"sub": [{"_experts_implementation_internal": "evil/repo"}]},
    ],
)
def test_configurations_that_name_code_are_refused(tmp_path: Path, document: object) -> None:
    file = tmp_path / "file"
    file.write_text(json.dumps(document))
    with pytest.raises(UnsafeContentError):
        check_content("x", "sub/config.json", file)
    check_content("x", "tokenizer.json", file)  # Nothing reads code keys from it.


def test_json_must_be_json(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("{")
    with pytest.raises(IntegrityError):
        check_content("x", "config.json", file)
