"""Each step of the fusion on a real export: what it finds, that answers stay, what it leaves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.export import Export
from registry.export.fusion import PACKED, fuse
from registry.export.onnx_file import Outline, write_model

LAYERS = 2
Feeds = Mapping[str, np.ndarray[Any, np.dtype[np.int64]]]


def feeds_of(lengths: list[int], *, left: bool = False, seed: int = 0) -> dict[str, Any]:
    """Random tokens of these lengths, padded on one side."""
    longest = max(lengths)
    place = np.arange(longest)[::-1] if left else np.arange(longest)
    mask = (place[None] < np.array(lengths)[:, None]).astype(np.int64)
    ids = np.random.default_rng(seed).integers(5, 100, mask.shape) * mask
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


@pytest.fixture(scope="module")
def sessions(tiny_export: Export) -> tuple[Any, Any]:
    """The graph as the exporter made it, and the fused one."""
    return tuple(
        onnxruntime.InferenceSession(tiny_export.path / name)
        for name in ("plain.onnx", "model.onnx")
    )  # type: ignore[return-value]


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path, load_external_data=False).graph.node)


def test_the_record_says_what_was_done(tiny_export: Export) -> None:
    assert tiny_export.fusions == {"attention": LAYERS, "first-row": 1, "packing": 6 * LAYERS - 4}
    found = operators(tiny_export.path / "model.onnx")
    assert found["MultiHeadAttention"] == LAYERS
    assert found["Slice"] <= 4  # positions; the last layer's queries, residual and mask
    assert found["Softmax"] == 0


def test_the_plain_graph_is_the_exporters_and_has_no_second_copy_of_weights(
    tiny_export: Export,
) -> None:
    plain = tiny_export.path / "plain.onnx"
    assert operators(plain)["Softmax"] == LAYERS
    assert all(not node.domain for node in onnx.load(plain).graph.node)
    assert (
        plain.stat().st_size < 2 * len(onnx.load(plain, load_external_data=False).graph.node) * 200
    )
    onnx.checker.check_model(str(plain))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.booleans(), st.integers(0, 99))
def test_answers_stay_whatever_is_padded(
    sessions: tuple[Any, Any], lengths: list[int], left: bool, seed: int
) -> None:
    feeds = feeds_of(lengths, left=left, seed=seed)
    plain, fused = (session.run(None, feeds)[0] for session in sessions)
    np.testing.assert_allclose(fused, plain, atol=1e-5)


def test_an_answer_does_not_depend_on_its_batch(sessions: tuple[Any, Any]) -> None:
    lengths = [3, 40, 17, 1, 40, 9]
    feeds = feeds_of(lengths)
    _, fused = sessions
    together = fused.run(None, feeds)[0]
    for row, length in enumerate(lengths):
        alone = {name: array[row : row + 1, :length] for name, array in feeds.items()}
        np.testing.assert_allclose(fused.run(None, alone)[0][0], together[row], atol=1e-5)


def test_a_row_without_a_token_harms_nobody(sessions: tuple[Any, Any]) -> None:
    feeds = feeds_of([0, 7])
    _, fused = sessions
    alone = {name: array[1:] for name, array in feeds.items()}
    np.testing.assert_allclose(
        fused.run(None, feeds)[0][1], fused.run(None, alone)[0][0], atol=1e-5
    )


def test_only_a_packed_graph_says_so(tiny_export: Export) -> None:
    def metadata(name: str) -> Mapping[str, str]:
        session = onnxruntime.InferenceSession(tiny_export.path / name)
        found: Mapping[str, str] = session.get_modelmeta().custom_metadata_map
        return found

    assert PACKED in metadata("model.onnx")
    assert PACKED not in metadata("plain.onnx")


def graph_of(nodes: list[Any], shape: list[Any], *, mask: bool = True) -> ir.Model:
    """A graph from `x` to `y` with one weight `w` (8, 8)."""
    value = onnx.helper.make_tensor_value_info
    whole, real = onnx.TensorProto.INT64, onnx.TensorProto.FLOAT
    inputs = [value("x", real, shape)]
    inputs += [value("attention_mask", whole, ["batch", "tokens"])] if mask else []
    weight = onnx.numpy_helper.from_array(np.eye(8, dtype=np.float32), "w")
    graph = onnx.helper.make_graph(nodes, "graph", inputs, [value("y", real, None)], [weight])
    opset = [onnx.helper.make_opsetid("", 20)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=10)
    return ir.from_proto(onnx.shape_inference.infer_shapes(model))


PRODUCT = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])


@pytest.mark.parametrize(
    "model",
    [
        graph_of([PRODUCT], ["batch", "tokens", 8], mask=False),
        graph_of([PRODUCT], ["batch", 3, 8]),
        graph_of([PRODUCT], ["batch", 8]),
        graph_of([onnx.helper.make_node("Softmax", ["x"], ["y"], axis=1)], ["batch", "tokens", 8]),
        graph_of(
            [onnx.helper.make_node("Softmax", ["x"], ["y"])], ["batch", 2, "tokens", "tokens"]
        ),
    ],
    ids=["no mask", "not tokens", "no batch", "over tokens", "attention of nothing"],
)
def test_what_is_not_recognised_stays(model: ir.Model) -> None:
    before = ir.to_proto(model).SerializeToString()
    assert fuse(model) == {}
    assert ir.to_proto(model).SerializeToString() == before


def test_an_output_of_packed_rows_keeps_its_name_and_shape(tmp_path: Path) -> None:
    model = graph_of([PRODUCT], ["batch", "tokens", 8])
    assert fuse(model) == {"packing": 1}
    write_model(model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert [value.name for value in session.get_outputs()] == ["y"]
    mask = np.array([[1, 1, 0], [0, 1, 1]], dtype=np.int64)
    x = np.random.default_rng(0).normal(size=(2, 3, 8)).astype(np.float32)
    (y,) = session.run(None, {"x": x, "attention_mask": mask})
    np.testing.assert_array_equal(y[mask > 0], x[mask > 0])


def test_an_outline_without_a_place_for_a_weight_is_not_written(tmp_path: Path) -> None:
    model = graph_of([PRODUCT], ["batch", "tokens", 8])
    tensor = ir.tensor(np.zeros((512,), dtype=np.float32), name="big")
    big = ir.Value(name="big", shape=tensor.shape, const_value=tensor)
    model.graph.register_initializer(big)
    assert not Outline(model).write(tmp_path / "plain.onnx", {})
    assert not (tmp_path / "plain.onnx").exists()
