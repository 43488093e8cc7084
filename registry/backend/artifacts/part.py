"""The artifact half as the frame sees it."""

from __future__ import annotations

from registry.backend.parts import Part

ARTIFACTS = Part(name="artifacts")
