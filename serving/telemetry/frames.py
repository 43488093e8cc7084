"""The bytes of a spool segment: frames that tell a torn tail from data; no I/O.

A frame is `length u32 | crc32 u32 | sequence u64 | payload`, little-endian; the
checksum covers length, sequence and payload. Payloads are never empty, so that
a tail of zeros (as some file systems leave after a crash) is no frame.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

_HEADER = struct.Struct("<IIQ")
HEADER_BYTES = _HEADER.size


class Entry(NamedTuple):
    """A payload and its place in the spool's order (1, 2, …)."""

    sequence: int
    payload: bytes


def encode(entry: Entry) -> bytes:
    """Return the frame of an entry.

    Raises:
        ValueError: the payload is empty.
    """
    if not entry.payload:
        raise ValueError("a spool payload must not be empty")
    length = len(entry.payload)
    return (
        _HEADER.pack(length, _checksum(length, entry.sequence, entry.payload), entry.sequence)
        + entry.payload
    )


def decode(data: bytes, offset: int = 0) -> tuple[list[Entry], int]:
    """Return the whole frames from `offset` on, and the offset behind the last of them.

    What follows that offset is incomplete or damaged.
    """
    entries = []
    while offset + HEADER_BYTES <= len(data):
        length, checksum, sequence = _HEADER.unpack_from(data, offset)
        end = offset + HEADER_BYTES + length
        if length == 0 or end > len(data):
            break
        payload = data[offset + HEADER_BYTES : end]
        if _checksum(length, sequence, payload) != checksum:
            break
        entries.append(Entry(sequence, payload))
        offset = end
    return entries, offset


def _checksum(length: int, sequence: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(struct.pack("<IQ", length, sequence)))
