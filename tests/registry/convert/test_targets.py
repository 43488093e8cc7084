"""What each pickle becomes, and what can be said of a file before it is read."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest

from registry.content import Selection, plan_files
from registry.convert.archive import check_archive
from registry.convert.targets import choose_targets, index_target, is_index, rewrite_index
from registry.errors import IntegrityError, UnsafeContentError
from registry.versions import Digest, FileEntry


def targets(*files: str) -> dict[str, str]:
    pickles = [f for f in files if f.endswith((".bin", ".pt", ".ckpt"))]
    return {t.path: t.target for t in choose_targets("m:v0", pickles, files)}


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("pytorch_model.bin", "model.safetensors"),
        ("pytorch_model-00001-of-00002.bin", "model-00001-of-00002.safetensors"),
        ("adapter_model.bin", "adapter_model.safetensors"),
        ("2_Dense/pytorch_model.bin", "2_Dense/model.safetensors"),
        ("model.ckpt", "model.safetensors"),
        ("best.pt", "best.safetensors"),
    ],
)
def test_a_pickle_becomes_what_loaders_look_for(path: str, target: str) -> None:
    assert targets(path) == {path: target}


def test_a_lone_checkpoint_beside_a_configuration_is_the_model() -> None:
    assert targets("config.json", "best.pt") == {"best.pt": "model.safetensors"}
    both = targets("config.json", "best.pt", "last.pt")
    assert both == {"best.pt": "best.safetensors", "last.pt": "last.safetensors"}


def test_nothing_is_written_over() -> None:
    with pytest.raises(UnsafeContentError, match="both become"):
        targets("model.ckpt", "model.pt")
    with pytest.raises(UnsafeContentError, match="both become"):
        targets("best.pt", "best.safetensors")


def test_the_index_is_rewritten_and_checked() -> None:
    path = "a/pytorch_model.bin.index.json"
    assert is_index(path)
    assert not is_index("a/model.safetensors.index.json")
    assert index_target(path) == "a/model.safetensors.index.json"
    raw = json.dumps({"weight_map": {"w": "pytorch_model.bin"}}).encode()
    made = rewrite_index(path, raw, {"a/pytorch_model.bin": ("a/model.safetensors", {"w"})})
    assert json.loads(made)["weight_map"] == {"w": "model.safetensors"}
    for wrong in ({"a/pytorch_model.bin": ("a/model.safetensors", {"v"})}, {}):
        with pytest.raises(IntegrityError, match="'w'"):
            rewrite_index(path, raw, wrong)
    for broken in (b"{", b"[]", b'{"weight_map": 1}'):
        with pytest.raises(IntegrityError, match="no index"):
            rewrite_index(path, broken, {})


def entries(*paths: str) -> list[FileEntry]:
    return [FileEntry(path, 1, Digest("md5", "0" * 32)) for path in paths]


def test_only_what_is_allowed_and_convertible_is_planned() -> None:
    files = entries("config.json", "pytorch_model.bin", "tf_model.h5", "optimizer.pt")
    with pytest.raises(UnsafeContentError) as caught:
        plan_files("m:v0", files, Selection())
    assert "--allow-pickle" in caught.value.hint
    plan = plan_files("m:v0", files, Selection(allow_pickle=True))
    assert [file.path for file in plan.wanted] == ["config.json", "pytorch_model.bin"]
    assert plan.pickles == ("pytorch_model.bin",)
    safe = plan_files("m:v0", [*files, *entries("model.safetensors")], Selection(allow_pickle=True))
    assert safe.pickles == ()
    for path in ("model.keras", "weights.npy", "model.pkl"):
        with pytest.raises(UnsafeContentError) as caught:
            plan_files("m:v0", entries(path), Selection(allow_pickle=True))
        assert "--allow-pickle" not in caught.value.hint


def archive(*names: str, compression: int = zipfile.ZIP_STORED, content: bytes = b"x") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as made:
        for name in names:
            made.writestr(name, content)
    return stream.getvalue()


GOOD = archive("a/data.pkl", "a/data/0")


@pytest.mark.parametrize(
    ("raw", "kind", "words"),
    [
        (b"", IntegrityError, "empty"),
        (b"hello world", IntegrityError, "not a file of PyTorch"),
        (GOOD[:-30], IntegrityError, "cut or is damaged"),
        (archive("a/other"), IntegrityError, "not PyTorch's"),
        (archive("a/data.pkl", "a/code/x.py"), UnsafeContentError, "TorchScript"),
        (archive("a/data.pkl", "a/constants.pkl"), UnsafeContentError, "TorchScript"),
        (
            archive("a/data.pkl", compression=zipfile.ZIP_DEFLATED, content=bytes(1_000_000)),
            UnsafeContentError,
            "compressed",
        ),
    ],
)
def test_what_can_be_seen_is_refused_unread(
    tmp_path: Path, raw: bytes, kind: type[IntegrityError], words: str
) -> None:
    path = tmp_path / "f"
    path.write_bytes(raw)
    with pytest.raises(kind, match=words):
        check_archive(path, "'f' in m:v0")


def test_entries_that_overlap_are_refused(tmp_path: Path) -> None:
    """The directory of the archive names the same bytes again and again."""
    content = bytes(10_000)
    raw = archive("a/data.pkl", "a/data/0", content=content)
    start = raw.rindex(b"PK\x01\x02")
    second = raw[start : raw.rindex(b"PK\x05\x06")]
    end = bytearray(raw[raw.rindex(b"PK\x05\x06") :])
    copies = 50
    end[8:10] = end[10:12] = (2 + copies).to_bytes(2, "little")
    size = int.from_bytes(end[12:16], "little") + copies * len(second)
    end[12:16] = size.to_bytes(4, "little")
    path = tmp_path / "f"
    path.write_bytes(raw[: raw.rindex(b"PK\x05\x06")] + second * copies + bytes(end))
    with pytest.raises(UnsafeContentError, match="more bytes than it has"):
        check_archive(path, "'f' in m:v0")


def test_good_archives_pass(tmp_path: Path) -> None:
    for raw in (GOOD, b"\x80\x02legacy"):
        (tmp_path / "f").write_bytes(raw)
        check_archive(tmp_path / "f", "f")
