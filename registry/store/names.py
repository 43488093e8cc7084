"""Names that the cache can complete, read from folder names alone: quick, and no file is opened."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from registry.store.layout import Layout


def cached_names(root: Path, server: str, project: str) -> list[str]:
    """Return cached `collection:version` and `collection:alias` names, sorted.

    Those of the project come bare, all others as `entity/project/collection:…`.

    Args:
        root: the cache folder; need not exist.
        server: the W&B server's address, or empty.
        project: the default project.
    """
    layout = Layout(root)
    found: set[str] = set()
    for records in (layout.collection_records(server), layout.collection_refs(server)):
        for path in records.glob("*/*/*/*.json"):
            if not path.name.startswith("."):
                found.add(_name(path, project, is_version=records.is_relative_to(layout.versions)))
    # A name so long that it was cut cannot be given back.
    return sorted(name for name in found if "~" not in name)


def _name(path: Path, project: str, *, is_version: bool) -> str:
    entity, home, collection = (unquote(part) for part in path.parts[-4:-1])
    selector = path.stem.rpartition(".")[0] if is_version else path.stem
    name = f"{collection}:{unquote(selector)}"
    return name if home == project else f"{entity}/{home}/{name}"
