"""Check that a `.safetensors` file is what it claims, by its header alone; read a small one."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from registry.errors import ExportError, IntegrityError

_MAX_HEADER_BYTES = 100_000_000
# The limit of the safetensors library itself.


_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}


def read_tensors(path: Path) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """Return all tensors of a small file as float32, by name.

    Raises:
        IntegrityError: the file is missing or is no safetensors file.
        ExportError: a tensor holds no floating-point numbers that are known here.
    """
    if not path.is_file():
        raise IntegrityError(f"{path.name} is missing.", hint="Pull the version again.")
    check_safetensors(path)
    raw = path.read_bytes()
    (header_bytes,) = struct.unpack("<Q", raw[:8])
    header = msgspec.json.decode(raw[8 : 8 + header_bytes], type=dict[str, dict[str, Any]])
    data = memoryview(raw)[8 + header_bytes :]
    return {
        name: _tensor(path, name, entry, data)
        for name, entry in header.items()
        if name != "__metadata__"
    }


def _tensor(
    path: Path, name: str, entry: dict[str, Any], data: memoryview
) -> np.ndarray[Any, np.dtype[np.float32]]:
    start, end = entry["data_offsets"]
    kind, shape = entry.get("dtype"), entry.get("shape")
    try:
        if kind == "BF16":
            # Its bits are the upper half of a float32's.
            halves = np.frombuffer(data[start:end], "<u2").astype(np.uint32)
            return (halves << 16).view(np.float32).reshape(shape)
        if kind in _FLOATS:
            values = np.frombuffer(data[start:end], _FLOATS[kind])
            return values.astype(np.float32).reshape(shape)
    except (ValueError, TypeError) as error:
        raise _corrupt(path, f"tensor {name!r} has not the size that it claims") from error
    raise ExportError(
        f"Tensor {name!r} of {path.name} holds {kind} and no floating-point numbers.",
        hint="Log the model in float32, float16 or bfloat16.",
    )


def check_safetensors(path: Path) -> int:
    """Check the header and that its tensors fill the file exactly; read no tensor.

    Returns:
        The bytes that the tensors take.

    Raises:
        IntegrityError: the header is not JSON, is too large, or disagrees with the file's size.
    """
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        header_bytes = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= header_bytes <= min(_MAX_HEADER_BYTES, size_bytes - 8):
            raise _corrupt(path, "its header's length is impossible")
        raw = file.read(header_bytes)
    try:
        header = msgspec.json.decode(raw, type=dict[str, dict[str, object]])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _corrupt(path, f"its header is not valid JSON ({error})") from error
    end = 0
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        end = max(end, _end_offset(path, name, entry))
    if end != size_bytes - 8 - header_bytes:
        raise _corrupt(path, "its tensors do not fill the file: it was cut or changed")
    return end


def _end_offset(path: Path, name: str, entry: dict[str, object]) -> int:
    offsets = entry.get("data_offsets")
    if (
        not isinstance(offsets, list)
        or len(offsets) != 2
        or not all(isinstance(offset, int) for offset in offsets)
        or not 0 <= offsets[0] <= offsets[1]
    ):
        raise _corrupt(path, f"tensor {name!r} has no valid data_offsets")
    return int(offsets[1])


def _corrupt(path: Path, why: str) -> IntegrityError:
    return IntegrityError(
        f"{path.name} is not a valid safetensors file: {why}.",
        hint="Pull the version again; if that does not help, log the model again.",
    )
