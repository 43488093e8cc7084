"""The pages as the frame sees them."""

from __future__ import annotations

from registry.backend.parts import Part

PAGES = Part(name="pages")
