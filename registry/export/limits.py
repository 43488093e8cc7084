"""How much an exporting child may take, at least; what each export adds is its own."""

from __future__ import annotations

import os

MEMORY_FLOOR_BYTES = 12 * 2**30
"""Address space: libraries reserve far more than they use."""

FILE_FLOOR_BYTES = 2**30
"""Longest file that a child may write, besides a multiple of the weights."""


def available_cores() -> int:
    """Return how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    return len(affinity(0)) if affinity else os.cpu_count() or 1
