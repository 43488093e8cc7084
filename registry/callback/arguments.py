"""Training arguments as JSON that may be shown to anybody: no secrets, no pickle."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE_NAME = "training_args.json"

_SECRET_KEY = re.compile(
    r"(^|[_\-.])(token|(api|access|private|secret|auth)[_\-]?key|secret|password|passwd"
    r"|credential|authorization)s?$",
    re.IGNORECASE,
)
_SECRET_TEXT = re.compile(r"\bhf_[A-Za-z0-9]{16,}|\bsk-[A-Za-z0-9_\-]{16,}|://[^/\s:@]*:[^/\s@]+@")


def public_arguments(args: Any) -> dict[str, Any]:
    """Return the arguments of a `TrainingArguments` as plain JSON values, without secrets.

    Left out, at any depth, is every key that names a token, key, secret or password, and every
    text that looks like one (a Hub token, an address with a password).
    """
    return _plain_mapping(args.to_dict())


def write_arguments(args: Any, directory: Path) -> Path:
    """Write `training_args.json` into `directory`; returns its path."""
    path = directory / FILE_NAME
    text = json.dumps(public_arguments(args), indent=2, sort_keys=True, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def json_safe(value: Any) -> Any:
    """Return `value` as JSON values: NaN and infinities become None, NumPy scalars numbers.

    What has no JSON form becomes its text.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [json_safe(item) for item in value]
    if _is_scalar(value):
        return json_safe(value.item())
    return str(value)


def _plain_mapping(mapping: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        str(key): _plain(value)
        for key, value in mapping.items()
        if not _SECRET_KEY.search(str(key)) and not _is_secret_text(value)
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _plain_mapping(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value if not _is_secret_text(item)]
    plain = json_safe(value)
    return None if _is_secret_text(plain) else plain


def _is_secret_text(value: Any) -> bool:
    return isinstance(value, str) and _SECRET_TEXT.search(value) is not None


def _is_scalar(value: Any) -> bool:
    # NumPy scalars and zero-dimensional tensors, recognised without importing either library.
    return getattr(value, "shape", None) == () and callable(getattr(value, "item", None))
