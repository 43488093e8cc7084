"""Opaque ids as the SDK expects them: base64 of `Type:key`."""

from __future__ import annotations

import base64
import binascii


def encode_id(kind: str, key: int | str) -> str:
    """Return the public id of row `key` of `kind`, for example of `Run:12`."""
    return base64.b64encode(f"{kind}:{key}".encode()).decode("ascii")


def decode_id(kind: str, text: str | None) -> int | None:
    """Return the row number in public id `text`, or None if it is not an id of `kind`."""
    try:
        found, _, key = base64.b64decode(text or "", validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None
    return int(key) if found == kind and key.isascii() and key.isdigit() else None
