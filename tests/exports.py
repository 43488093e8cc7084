"""Real exports for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from registry import Export, export_model
from registry.export.store import hash_file
from registry.store.snapshots import snapshot_digest


def digest_of(model: Path) -> str:
    """Return the digest that a pull of this directory would have."""
    files = [path for path in model.rglob("*") if path.is_file()]
    return snapshot_digest({path.relative_to(model).as_posix(): hash_file(path) for path in files})


def export_directory(model: Path, exports_dir: Path, **options: Any) -> Export:
    """Export a model directory, with a deadline that a hanging test would notice."""
    options.setdefault("timeout_s", 200.0)
    return export_model(model, digest=digest_of(model), exports_dir=exports_dir, **options)
