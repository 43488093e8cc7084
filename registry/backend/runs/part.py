"""The run half as the frame sees it."""

from __future__ import annotations

from registry.backend.parts import Part
from registry.backend.runs.schema import MIGRATIONS

RUNS = Part(name="runs", migrations=MIGRATIONS)
