"""Counts of what clients asked for and this server does not know."""

from __future__ import annotations

import threading
from collections import Counter


class UnknownNames:
    """Thread-safe counts of unknown fields (`Run.x`) and arguments (`Run.files(x)`)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fields: Counter[str] = Counter()
        self._arguments: Counter[str] = Counter()

    def field(self, typename: str, name: str) -> None:
        """Count a field that resolved to null because nothing declares it."""
        with self._lock:
            self._fields[f"{typename}.{name}"] += 1

    def argument(self, typename: str, field: str, name: str) -> None:
        """Count an argument that was dropped."""
        with self._lock:
            self._arguments[f"{typename}.{field}({name})"] += 1

    def counts(self) -> dict[str, dict[str, int]]:
        """Return `{"fields": {name: count}, "arguments": {name: count}}`, sorted by name."""
        with self._lock:
            return {
                "fields": dict(sorted(self._fields.items())),
                "arguments": dict(sorted(self._arguments.items())),
            }
