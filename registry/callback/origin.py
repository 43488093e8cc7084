"""Where the model that an adapter adapts came from; no W&B."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from registry.store.layout import Layout
from registry.store.records import every_record

_SNAPSHOT = re.compile(r"[0-9a-f]{64}\Z")


def base_artifact(model: Any) -> str | None:
    """Return `entity/project/name:vN` of the base model of a PEFT `model`.

    None when the model is no adapter, or its base was not loaded from Runport's cache (by
    `registry.load`, or from the folder that `registry.pull` returned).
    """
    for adapter in (getattr(model, "peft_config", None) or {}).values():
        folder = Path(str(getattr(adapter, "base_model_name_or_path", None) or ""))
        if _SNAPSHOT.match(folder.name):
            return _logged_as(folder)
    return None


def _logged_as(snapshot: Path) -> str | None:
    layout = Layout(snapshot.parent.parent)
    if layout.snapshot(snapshot.name) != snapshot:
        return None
    found = [r for _, r in every_record(layout) if r.snapshot == snapshot.name]
    newest = max(found, key=lambda record: record.committed_at, default=None)
    return newest.version.qualified_name if newest is not None else None
