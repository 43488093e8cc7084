"""Write a model as one ONNX file without holding it twice.

Serialising with protobuf needs the model's size three times over. A protobuf message may be written
in pieces, though: pieces of an embedded message that follow each other are merged by every reader.
So the graph goes first, without its weights, and then each weight as a piece of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import onnx_ir

MAX_FILE_BYTES = 2_000_000_000
"""Protobuf's limit is 2 GiB; larger models keep their weights in a second file."""

_INLINE_BYTES = 1024
_GRAPH_FIELD = b"\x3a"  # ModelProto.graph, length-delimited
_INITIALIZER_FIELD = b"\x2a"  # GraphProto.initializer, length-delimited
_RAW_DATA_FIELD = b"\x4a"  # TensorProto.raw_data, length-delimited


def write_model(model: onnx_ir.Model, path: Path) -> None:
    """Write `model` to `path`; a model of more than 2 GB gets `<path>.data` beside it.

    Source locations that the exporter noted are left out. The model has lost its large weights
    afterwards: it was consumed.

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
        return
    large = [
        weights.pop(name)
        for name, value in [*weights.items()]
        if _size_bytes(value) > _INLINE_BYTES
    ]
    with path.open("wb") as file:
        file.write(onnx_ir.to_proto(model).SerializeToString())
        for value in large:
            _write_initializer(file, value)


def _size_bytes(value: onnx_ir.Value) -> int:
    return int(value.const_value.nbytes) if value.const_value is not None else 0


def _write_initializer(file: BinaryIO, value: onnx_ir.Value) -> None:
    import onnx

    tensor = value.const_value
    if tensor is None:
        raise ValueError(f"{value.name} has no value")
    data = tensor.tobytes()
    head = onnx.TensorProto(
        dims=tensor.shape.numpy(), data_type=int(tensor.dtype), name=value.name
    ).SerializeToString()
    head += _RAW_DATA_FIELD + _varint(len(data))
    piece = _INITIALIZER_FIELD + _varint(len(head) + len(data)) + head
    file.write(_GRAPH_FIELD + _varint(len(piece) + len(data)) + piece)
    file.write(data)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
