"""Run documents as JSON text: configuration, summary, tags and history lines."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from registry.backend.graphql.errors import OperationError


def parse_object(text: str | None, what: str) -> dict[str, Any]:
    """Parse JSON text that must be an object; absent text is an empty one.

    Raises:
        OperationError: the text is something else.
    """
    if not text:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise OperationError(f"The {what} is not JSON.") from error
    if not isinstance(value, dict):
        raise OperationError(f"The {what} is not a JSON object.")
    return value


def config_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return `{key: value}` of a stored configuration, without W&B's own keys."""
    return {
        key: entry["value"] if isinstance(entry, Mapping) and "value" in entry else entry
        for key, entry in config.items()
        if key not in ("_wandb", "wandb_version")
    }


def value_at(document: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path, or None; keys may themselves hold dots."""
    if path in document:
        return document[path]
    parts = path.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        inner = document.get(".".join(parts[:cut]))
        if isinstance(inner, Mapping):
            return value_at(inner, ".".join(parts[cut:]))
    return None


def leaf_items(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield `(dotted key, value)`; media and histograms (objects with `_type`) stay whole."""
    for key, value in document.items():
        if isinstance(value, Mapping) and value and "_type" not in value:
            yield from leaf_items(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def strict_json(value: Any) -> Any:
    """Return `value` with NaN and infinities as the strings that W&B uses for them."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, Mapping):
        return {key: strict_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [strict_json(item) for item in value]
    return value


def parse_line(content: str) -> dict[str, Any] | None:
    """Parse one line of a history or event stream; None when it is no JSON object."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def json_type(value: Any) -> str:
    """Return the name under which `historyKeys` counts a value's type."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, Mapping):
        return str(value.get("_type") or "map")
    if isinstance(value, list):
        return "list"
    if value is None:
        return "nil"
    return "string"
