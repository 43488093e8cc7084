"""The pages as the frame sees them."""

from __future__ import annotations

from registry.backend.pages import routes
from registry.backend.parts import Part

PAGES = Part(
    name="pages",
    routes=(
        routes.style,
        routes.root,
        routes.entity_projects,
        routes.project,
        routes.run,
        routes.collection,
        routes.version,
    ),
)
