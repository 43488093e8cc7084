"""Check that a `.safetensors` file is what it claims, by its header alone."""

from __future__ import annotations

import struct
from pathlib import Path

import msgspec

from registry.errors import IntegrityError

_MAX_HEADER_BYTES = 100_000_000
# The limit of the safetensors library itself.


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
