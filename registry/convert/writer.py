"""Tensors as one safetensors file, one tensor in memory at a time; the same tensors, same bytes."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from registry.errors import ConversionError, UnsafeContentError

_ALIGNMENT = 8


def _dtypes() -> dict[Any, str]:
    import torch

    return {
        torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
        torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
        torch.uint8: "U8", torch.bool: "BOOL", torch.uint16: "U16", torch.uint32: "U32",
        torch.uint64: "U64", torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
    }  # fmt: skip


def write_safetensors(tensors: Mapping[str, Any], target: Path, shown: str) -> None:
    """Write the tensors; those that share memory are each written out, as the format asks.

    Args:
        tensors: name -> tensor on the CPU.
        target: must not exist.
        shown: the name of where they came from, for messages.

    Raises:
        UnsafeContentError: a tensor is of a kind that safetensors has not.
        OSError: the disk refuses.
    """
    if sys.byteorder != "little":
        raise ConversionError("Weights are converted on little-endian machines only.")
    dtypes = _dtypes()
    for name, tensor in tensors.items():
        if tensor.dtype not in dtypes:
            raise UnsafeContentError(
                f"{name[:80]!r} in {shown} is of {tensor.dtype}, which safetensors has not.",
                hint="Log the model in float32, float16 or bfloat16.",
            )
    # Wide elements first, then by name: so every tensor is aligned, and order of saving is nothing.
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in order:
        start, end = end, end + tensors[name].numel() * tensors[name].element_size()
        header[name] = {
            "dtype": dtypes[tensors[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with target.open("xb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            file.write(memoryview(_bytes(tensors[name]).numpy()))


def check_written(tensors: Mapping[str, Any], target: Path, shown: str) -> None:
    """Read the file with the safetensors library and compare names, kinds, shapes and bytes.

    Raises:
        ConversionError: something differs, or the library is not installed.
    """
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise ConversionError(
            "Converting needs safetensors, which is not installed.", hint="Install runport[export]."
        ) from error
    import torch

    with safe_open(target, framework="pt") as file:
        if set(file.keys()) != set(tensors):
            raise _differs(shown)
        for name, tensor in tensors.items():
            found = file.get_tensor(name)
            same = (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
            if not same or not torch.equal(_bytes(found), _bytes(tensor)):
                raise _differs(shown)


def _differs(shown: str) -> ConversionError:
    return ConversionError(
        f"What was written of {shown} is not what was read.",
        hint="Is the disk or the memory of this machine faulty?",
    )


def _bytes(tensor: Any) -> Any:
    """Return the values as a row of bytes, so that NaN equals itself."""
    import torch

    plain = tensor.resolve_conj().resolve_neg().contiguous().reshape(-1)
    return plain.view(torch.uint8)
