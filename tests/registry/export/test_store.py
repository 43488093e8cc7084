"""The exports folder: complete or absent, found without torch, damage passed over."""

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from registry.errors import UsageError
from registry.export import Export, find_export, find_refusal
from registry.export.store import (
    Refusal,
    commit,
    export_key,
    keep_refusal,
    list_files,
    read_export,
    refusal_path,
    staging,
    tool_versions,
)

FIND = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "transformers", "onnx", "onnxscript", "onnxruntime"}:
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
from pathlib import Path
from registry import find_export
print(find_export(Path(sys.argv[1]), sys.argv[2]).path)
"""


@pytest.fixture
def exports(tiny_export: Export, tmp_path: Path) -> Path:
    """A copy of the session's exports folder, to damage."""
    shutil.copytree(tiny_export.path, tmp_path / "exports" / tiny_export.key)
    return tmp_path / "exports"


def test_an_export_is_found_without_torch(tiny_export: Export) -> None:
    folder = tiny_export.path.parent
    assert find_export(folder, tiny_export.digest) == tiny_export
    found = subprocess.run(
        [sys.executable, "-c", FIND, str(folder), tiny_export.digest],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == str(tiny_export.path)


def test_only_what_was_asked_for_is_found(
    tiny_export: Export, exports: Path, tmp_path: Path
) -> None:
    folder, digest = exports, tiny_export.digest
    found = find_export(folder, digest, "text-classification")
    assert found is not None
    assert found.key == tiny_export.key
    assert find_export(folder, digest, "fill-mask") is None
    assert find_export(folder, digest, precision="int8") is None
    assert find_export(folder, digest, engine="openvino") is None
    assert find_export(folder, digest[:32] + "0" * 32) is None
    assert find_export(tmp_path / "missing", digest) is None
    with pytest.raises(UsageError):
        find_export(folder, "*")


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.chmod(0o600)
    os.truncate(path, path.stat().st_size - 1)


def link_elsewhere(path: Path) -> None:
    moved = path.parent.parent / path.name
    path.rename(moved)
    path.symlink_to(moved)


@pytest.mark.parametrize("damage", [flip_a_bit, truncate, link_elsewhere, Path.unlink])
@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "config.json"])
def test_a_damaged_export_is_passed_over(exports: Path, tiny_export: Export, damage, name) -> None:
    damage(exports / tiny_export.key / name)
    assert find_export(exports, tiny_export.digest) is None


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"format": 1}', b'{"format": 99}', b"\xff"]
)
def test_an_unreadable_record_is_no_export(
    exports: Path, tiny_export: Export, content: bytes
) -> None:
    record = exports / tiny_export.key / "export.json"
    record.chmod(0o600)
    record.write_bytes(content)
    assert find_export(exports, tiny_export.digest) is None


def test_an_export_under_another_key_is_no_export(exports: Path, tiny_export: Export) -> None:
    moved = f"{tiny_export.digest[:32]}-{'0' * 16}"
    (exports / tiny_export.key).rename(exports / moved)
    assert find_export(exports, tiny_export.digest) is None


def test_what_the_installed_tools_made_is_preferred(exports: Path, tiny_export: Export) -> None:
    key = f"{tiny_export.digest[:32]}-{'0' * 16}"
    with staging(exports, key) as work:
        prepared = shutil.copytree(tiny_export.path, work / "export")
        (prepared / "export.json").chmod(0o600)
        (prepared / "export.json").unlink()
        other = replace(tiny_export, key=key, path=exports / key, created_at_s=9e9)
        commit(prepared, exports, other)
    found = find_export(exports, tiny_export.digest)
    assert found is not None
    assert found.key == tiny_export.key
    shutil.rmtree(exports / tiny_export.key)
    assert find_export(exports, tiny_export.digest) == other


def prepare(work: Path, export: Export) -> Path:
    prepared = shutil.copytree(export.path, work / "export")
    (prepared / "export.json").chmod(0o600)
    (prepared / "export.json").unlink()
    return prepared


def test_the_first_of_two_exporters_wins(exports: Path, tiny_export: Export) -> None:
    with staging(exports, tiny_export.key) as work:
        mine = replace(tiny_export, path=exports / tiny_export.key, created_at_s=1.0)
        kept = commit(prepare(work, tiny_export), exports, mine)
    assert kept.created_at_s == tiny_export.created_at_s
    assert {path.name for path in exports.iterdir()} == {tiny_export.key}


@pytest.mark.parametrize("force", [False, True])
def test_a_broken_or_unwanted_export_is_replaced(
    exports: Path, tiny_export: Export, force: bool
) -> None:
    if not force:
        flip_a_bit(exports / tiny_export.key / "model.onnx")
    with staging(exports, tiny_export.key) as work:
        mine = replace(tiny_export, path=exports / tiny_export.key, created_at_s=1.0)
        assert commit(prepare(work, tiny_export), exports, mine, replace=force) == mine
    assert find_export(exports, tiny_export.digest) == mine
    assert {path.name for path in exports.iterdir()} == {tiny_export.key}


def test_left_overs_are_collected_once_they_are_old(exports: Path) -> None:
    old, young = exports / ".staging-old-1", exports / ".staging-young-1"
    for path in (old, young):
        (path / "export").mkdir(parents=True)
    os.utime(old, (1, 1))
    with staging(exports, "key"):
        assert not old.exists()
        assert young.exists()


def test_files_are_hashed_and_read_only(tiny_export: Export) -> None:
    names = {file.name for file in tiny_export.files}
    assert names >= {"model.onnx", "config.json", "tokenizer.json", "tokenizer_config.json"}
    for file in tiny_export.files:
        path = tiny_export.path / file.name
        assert hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256
        assert path.stat().st_mode & 0o777 == 0o444
    assert read_export(tiny_export.path) == tiny_export


def test_the_key_depends_on_everything_that_shapes_an_export() -> None:
    base = {"task": "t", "precision": "fp32", "engine": "onnx", "tools": {"torch": "1"}}
    changes = [
        {},
        {"task": "u"},
        {"precision": "int8"},
        {"engine": "openvino"},
        {"tools": {"torch": "2"}},
    ]
    keys = {export_key("a" * 64, **(base | change)) for change in changes}
    assert len(keys) == len(changes)
    assert export_key("b" * 64, **base) not in keys
    with pytest.raises(UsageError):
        export_key("../x", **base)


def test_a_refusal_is_kept_and_found(tiny_export: Export, tmp_path: Path) -> None:
    refusal = Refusal(
        path=refusal_path(tmp_path, tiny_export.key),
        key=tiny_export.key,
        digest=tiny_export.digest,
        task=tiny_export.task,
        precision="fp32",
        engine="onnx",
        report=replace(tiny_export.report, passed=False),
    )
    keep_refusal(refusal)
    assert find_refusal(tmp_path, tiny_export.digest) == refusal
    assert find_refusal(tmp_path, tiny_export.digest, "fill-mask") is None
    assert find_export(tmp_path, tiny_export.digest) is None


def test_an_export_forgets_an_earlier_refusal(exports: Path, tiny_export: Export) -> None:
    refusal_path(exports, tiny_export.key).write_text("{}")
    with staging(exports, tiny_export.key) as work:
        mine = replace(tiny_export, path=exports / tiny_export.key)
        commit(prepare(work, tiny_export), exports, mine, replace=True)
    assert not refusal_path(exports, tiny_export.key).exists()


def test_the_tools_are_named() -> None:
    assert {"torch", "transformers", "onnxruntime"} <= set(tool_versions())


def test_a_file_is_listed_with_its_size_and_hash(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"graph")
    (file,) = list_files(tmp_path)
    assert (file.name, file.size_bytes) == ("model.onnx", 5)
    assert file.sha256 == hashlib.sha256(b"graph").hexdigest()
