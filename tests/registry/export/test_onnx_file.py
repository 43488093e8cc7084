"""The file that is written in pieces is the file that protobuf would have written whole."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest

from registry.export import onnx_file
from registry.export.onnx_file import write_model

WEIGHT = np.arange(64 * 32, dtype=np.float32).reshape(64, 32)
BIAS = np.arange(32, dtype=np.float32)


def model() -> onnx_ir.Model:
    """MatMul with a large weight, Add with one that stays inside the graph."""
    tensor = onnx.helper.make_tensor_value_info
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "weight"], ["product"], doc_string="/home/someone"),
        onnx.helper.make_node("Add", ["product", "bias"], ["y"]),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "graph",
        [tensor("x", onnx.TensorProto.FLOAT, ["batch", 64])],
        [tensor("y", onnx.TensorProto.FLOAT, ["batch", 32])],
        [
            onnx.numpy_helper.from_array(WEIGHT, "weight"),
            onnx.numpy_helper.from_array(BIAS, "bias"),
        ],
    )
    opset = [onnx.helper.make_opsetid("", 18)]
    return onnx_ir.from_proto(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10))


def check(path: Path) -> None:
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path))
    x = np.ones((3, 64), dtype=np.float32)
    np.testing.assert_allclose(session.run(None, {"x": x})[0], x @ WEIGHT + BIAS)


def test_pieces_make_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write_model(model(), path)
    check(path)
    read = {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer}
    np.testing.assert_array_equal(read["weight"], WEIGHT)
    np.testing.assert_array_equal(read["bias"], BIAS)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_source_locations_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write_model(model(), path)
    assert b"/home/someone" not in path.read_bytes()


def test_a_model_over_the_limit_has_its_weights_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "MAX_FILE_BYTES", 1000)
    path = tmp_path / "model.onnx"
    write_model(model(), path)
    check(path)
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {"model.onnx", "model.onnx.data"}
    assert not any(file.is_symlink() for file in tmp_path.iterdir())
