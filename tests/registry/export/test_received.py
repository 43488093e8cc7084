"""Exports that came from elsewhere: ours pass, and whatever no export of ours holds is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from registry import Export, IntegrityError, RegistryError, UnsafeContentError, check_export
from registry.export.onnx_content import check_onnx
from registry.export.store import hash_file

INT64 = TensorProto.INT64
SMALL = numpy_helper.from_array(np.ones((2, 3), np.float32), "small")


def model(nodes: list[Any], initializers: tuple[Any, ...] = (), **options: Any) -> Any:
    """A graph with the inputs of the tiny model."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = [helper.make_tensor_value_info(name, INT64, ["rows", "tokens"]) for name in names]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", inputs, [output], initializer=list(initializers))
    options.setdefault("opset_imports", [helper.make_opsetid("", 18)])
    return helper.make_model(graph, **options)


def cast() -> Any:
    return helper.make_node("Cast", ["input_ids"], ["logits"], to=TensorProto.FLOAT)


def outside() -> Any:
    weight = numpy_helper.from_array(np.ones(3, np.float32), "w")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="/etc/passwd")
    return model([cast()], (weight,))


def short() -> Any:
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    weight.dims[0] = 2**40
    return model([cast()], (weight,))


def loop() -> Any:
    body = helper.make_graph([], "body", [], [])
    return model([helper.make_node("Loop", ["n", ""], ["logits"], body=body)])


def hidden_loop() -> Any:
    inner = helper.make_graph(
        [helper.make_node("Loop", ["n", ""], ["x"], body=helper.make_graph([], "b", [], []))],
        "then", [], [],
    )  # fmt: skip
    node = helper.make_node("If", ["c"], ["logits"], then_branch=inner, else_branch=inner)
    return model([node])


def foreign() -> Any:
    node = helper.make_node("Run", ["input_ids"], ["logits"], domain="evil.library")
    return model([node])


def functions() -> Any:
    opset = [helper.make_opsetid("", 18)]
    function = helper.make_function("ai.onnx", "F", ["a"], ["b"], [cast()], opset)
    return model([cast()], functions=[function])


def test_a_plain_graph_passes_and_so_does_an_export(tiny_export: Export, tmp_path: Path) -> None:
    onnx.save(model([cast()], (SMALL,)), tmp_path / "model.onnx")
    check_onnx(tmp_path / "model.onnx")
    check_onnx(tiny_export.path / "model.onnx")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (outside, "another file"),
        (short, "do not fit"),
        (loop, "Loop"),
        (hidden_loop, "Loop"),
        (foreign, "evil.library"),
        (functions, "functions"),
    ],
)
def test_what_no_export_holds(make: Callable[[], Any], words: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(make().SerializeToString())
    with pytest.raises(UnsafeContentError, match=words):
        check_onnx(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\xff" * 64, b"\x3a\xff\xff\xff\xff\x0f"])
def test_what_is_no_onnx(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(UnsafeContentError):
        check_onnx(path)


def test_a_graph_cut_anywhere_is_an_error_of_ours(tmp_path: Path) -> None:
    whole = model([cast()], (SMALL,)).SerializeToString()
    path = tmp_path / "model.onnx"
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        try:
            check_onnx(path)
        except UnsafeContentError:
            continue


@pytest.fixture
def received(tiny_export: Export, tmp_path: Path) -> Path:
    folder = shutil.copytree(tiny_export.path, tmp_path / "snapshot")
    for path in folder.iterdir():
        path.chmod(0o600)
    return folder


def vouch(folder: Path, **changes: Any) -> None:
    """Write the record anew, as whoever can write into a project can do."""
    record = json.loads((folder / "export.json").read_text())
    record["files"] = [
        {"name": path.name, "size_bytes": path.stat().st_size, "sha256": hash_file(path)}
        for path in sorted(folder.iterdir())
        if path.name != "export.json"
    ]
    (folder / "export.json").write_text(json.dumps(record | changes))


def bomb(folder: Path) -> None:
    """A few bytes that unfold to a petabyte when constants are folded."""
    shape = numpy_helper.from_array(np.array([2**25, 2**25], np.int64), "shape")
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["input_ids"], ["ids"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["ids", "sum"], ["logits"]),
    ]
    onnx.save(model(nodes, (shape,)), folder / "model.onnx")
    vouch(folder)


def other_inputs(folder: Path) -> None:
    vouch(folder, input_names=["input_ids"])


def changed(folder: Path) -> None:
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"!")


def extra(folder: Path) -> None:
    (folder / "second.onnx").write_bytes(b"x")


def outward(folder: Path) -> None:
    files = [{"name": "../../secret.onnx", "size_bytes": 0, "sha256": ""}]
    vouch(folder, files=files)


@pytest.mark.parametrize(
    ("damage", "kind", "words"),
    [
        (bomb, UnsafeContentError, "within its limits"),
        (other_inputs, UnsafeContentError, "other inputs"),
        (changed, IntegrityError, "not those"),
        (extra, UnsafeContentError, "vouch"),
        (outward, UnsafeContentError, "vouch"),
        (lambda folder: vouch(folder, task="fortune-telling"), RegistryError, "no task"),
        (lambda folder: vouch(folder, precision="int3"), RegistryError, "int3"),
        (lambda folder: (folder / "export.json").write_text("{}"), IntegrityError, "be read"),
    ],
)
def test_a_bad_export_is_a_clear_error(
    received: Path, damage: Callable[[Path], Any], kind: type[RegistryError], words: str
) -> None:
    damage(received)
    with pytest.raises(kind, match=words) as caught:
        check_export(received)
    assert caught.value.message


def test_a_good_one_passes_and_is_tried_once(received: Path, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    export = check_export(received, marks_dir=marks, digest="d" * 64)
    assert export.task == "text-classification"
    assert [path.name for path in marks.iterdir()] == ["d" * 64 + "-onnx"]
    assert check_export(received, marks_dir=marks, digest="d" * 64) == export
