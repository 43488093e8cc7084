"""Real exports for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from registry import Export, export_model
from registry.export.store import hash_file
from registry.store.snapshots import snapshot_digest


def digest_of(model: Path) -> str:
    """Return the digest that a pull of this flat directory would have."""
    return snapshot_digest({path.name: hash_file(path) for path in model.iterdir()})


def export_directory(model: Path, exports_dir: Path, **options: Any) -> Export:
    """Export a model directory, with a deadline that a hanging test would notice."""
    options.setdefault("timeout_s", 200.0)
    return export_model(model, digest=digest_of(model), exports_dir=exports_dir, **options)
