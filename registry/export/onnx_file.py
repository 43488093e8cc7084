"""Write a model as one ONNX file without holding it twice.

Serialising with protobuf needs the model's size three times over. A protobuf message may be written
in pieces, though: pieces of an embedded message that follow each other are merged by every reader.
So the graph goes first, without its weights, and then each weight as a piece of its own.

A second graph over the same weights costs its nodes alone: it names where in the file they lie.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import onnx
    import onnx_ir

MAX_FILE_BYTES = 2_000_000_000
"""Protobuf's limit is 2 GiB; larger models keep their weights in a second file."""

_INLINE_BYTES = 1024
_GRAPH_FIELD = b"\x3a"  # ModelProto.graph, length-delimited
_INITIALIZER_FIELD = b"\x2a"  # GraphProto.initializer, length-delimited
_RAW_DATA_FIELD = b"\x4a"  # TensorProto.raw_data, length-delimited


@dataclass(frozen=True, slots=True)
class WeightPlace:
    """Where the bytes of a weight lie: `file` beside the graph, `offset_bytes`, `size_bytes`."""

    file: str
    offset_bytes: int
    size_bytes: int


class Outline:
    """A graph without its large weights, to be written when it is known where they lie.

    Args:
        model: is left as it is, and may change afterwards.
    """

    def __init__(self, model: onnx_ir.Model) -> None:
        import onnx_ir
        from onnx_ir.passes.common import ClearMetadataAndDocStringPass

        copy = model.clone()
        ClearMetadataAndDocStringPass()(copy)
        large = _take_large(copy)
        self._graph = onnx_ir.to_proto(copy)
        self._heads = [_head(value) for value in large]

    def write(self, path: Path, places: Mapping[str, WeightPlace]) -> bool:
        """Write the graph to `path`, in the folder of the weights; False where one has no place.

        Raises:
            OSError: the disk refuses.
        """
        if any(head.name not in places for head in self._heads):
            return False
        for head in self._heads:
            _refer(self._graph, head, places[head.name])
        path.write_bytes(self._graph.SerializeToString())
        return True


def write_model(
    model: onnx_ir.Model, path: Path, lent: Mapping[str, WeightPlace] | None = None
) -> dict[str, WeightPlace]:
    """Write `model` to `path`; a model of more than 2 GB gets `<path>.data` beside it.

    Source locations that the exporter noted are left out. The model has lost its large weights
    afterwards: it was consumed.

    Args:
        model: the graph.
        path: gets it.
        lent: weights that another graph in the same folder has already, by name: this one refers
            to them. A model of more than 2 GB has its own all the same.

    Returns:
        Where each large weight lies, by name.

    Raises:
        OSError: the disk refuses.
    """
    import onnx_ir
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    ClearMetadataAndDocStringPass()(model)
    weights = model.graph.initializers
    total_bytes = sum(_size_bytes(value) for value in weights.values())
    if total_bytes > MAX_FILE_BYTES:
        onnx_ir.save(model, str(path), external_data=f"{path.name}.data")
        return _external_places(path)
    lent = lent or {}
    taken = _take_large(model)
    large = [value for value in taken if value.name not in lent]
    graph = onnx_ir.to_proto(model)
    for value in taken:
        if value.name in lent:
            _refer(graph, _head(value), lent[str(value.name)])
    with path.open("wb") as file:
        file.write(graph.SerializeToString())
        return {str(value.name): _write_initializer(file, path.name, value) for value in large}


def _refer(graph: onnx.ModelProto, head: onnx.TensorProto, place: WeightPlace) -> None:
    """Add a weight to the graph that lies elsewhere."""
    graph.graph.initializer.append(head)
    weight = graph.graph.initializer[-1]
    weight.data_location = weight.EXTERNAL
    for key, text in (
        ("location", place.file),
        ("offset", str(place.offset_bytes)),
        ("length", str(place.size_bytes)),
    ):
        weight.external_data.add(key=key, value=text)


def _take_large(model: onnx_ir.Model) -> list[onnx_ir.Value]:
    weights = model.graph.initializers
    names = [name for name, value in weights.items() if _size_bytes(value) > _INLINE_BYTES]
    return [weights.pop(name) for name in names]


def _external_places(path: Path) -> dict[str, WeightPlace]:
    import onnx_ir

    return {
        name: WeightPlace(str(tensor.location), int(tensor.offset or 0), tensor.nbytes)
        for name, value in onnx_ir.load(path).graph.initializers.items()
        if isinstance(tensor := value.const_value, onnx_ir.ExternalTensor)
    }


def _size_bytes(value: onnx_ir.Value) -> int:
    return int(value.const_value.nbytes) if value.const_value is not None else 0


def _head(value: onnx_ir.Value) -> onnx.TensorProto:
    """Return name, type and shape of a weight."""
    import onnx

    tensor = _tensor(value)
    return onnx.TensorProto(dims=tensor.shape.numpy(), data_type=int(tensor.dtype), name=value.name)


def _tensor(value: onnx_ir.Value) -> onnx_ir.TensorProtocol:
    if value.const_value is None:
        raise ValueError(f"{value.name} has no value")
    return value.const_value


def _write_initializer(file: BinaryIO, name: str, value: onnx_ir.Value) -> WeightPlace:
    data = _tensor(value).tobytes()
    head = _head(value).SerializeToString()
    head += _RAW_DATA_FIELD + _varint(len(data))
    piece = _INITIALIZER_FIELD + _varint(len(head) + len(data)) + head
    file.write(_GRAPH_FIELD + _varint(len(piece) + len(data)) + piece)
    place = WeightPlace(name, file.tell(), len(data))
    file.write(data)
    return place


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
