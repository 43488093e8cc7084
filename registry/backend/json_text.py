"""Parsing JSON that clients send, made safe to store."""

from __future__ import annotations

import json
import re
from typing import Any

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse_json(body: bytes) -> Any:
    """Parse JSON; halves of surrogate pairs, which no database keeps, become `?`.

    Raises:
        ValueError: the bytes are no JSON.
        RecursionError: they are nested too deeply.
    """
    value = json.loads(body)
    return _without_surrogates(value) if _SURROGATE.search(body) else value


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(v) for key, v in value.items()}
    return value
