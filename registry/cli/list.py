"""`registry list`: the model collections of a project, or the versions of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import rich_click as click

from registry.cli.completion import complete_name
from registry.cli.output import json_errors, json_option, result, result_json, say

if TYPE_CHECKING:
    from registry.lookup import Listing
    from registry.versions import ArtifactVersion

_METRICS_SHOWN = 3


@click.command()
@click.argument("name", required=False, shell_complete=complete_name)
@json_option
def command(name: str | None, as_json: bool) -> None:
    """List model collections and their versions, newest first.

    NAME is a collection (its versions are listed), or a `[entity/]project`; without it the
    default project is listed (WANDB_PROJECT, else `huggingface`).
    """
    from registry.config import Settings

    with json_errors(as_json):
        listings = _listings(name, Settings.from_environment())
    if as_json:
        result_json([_document(listing) for listing in listings])
        return
    if not listings:
        say("No models there.")
    for listing in listings:
        for line in _lines(listing):
            result(line)


def _listings(name: str | None, settings: Any) -> list[Listing]:
    from registry.errors import NotFoundError
    from registry.lookup import list_collection, list_project, open_hub

    hub = open_hub(settings)
    if name is None:
        return list_project(None, settings=settings, hub=hub)
    try:
        return [list_collection(name, settings=settings, hub=hub)]
    except NotFoundError as missing:
        if name.count("/") > 1 or ":" in name:
            raise
        found = list_project(name, settings=settings, hub=hub)
        if not found:
            raise missing
        return found


def _lines(listing: Listing) -> list[str]:
    head = f"{listing.collection.entity}/{listing.collection.project}/{listing.collection.name}"
    return [head, *(f"  {_line(version)}" for version in listing.versions)]


def _line(version: ArtifactVersion) -> str:
    from registry.cli.pull import size_text
    from registry.naming import is_stub

    parts = [f"{version.version:<5}", f"{size_text(version.size_bytes):>9}"]
    if is_stub(version):
        parts.append("stub without weights")
    parts.extend(f"{key}={value:.4g}" for key, value in shown_metrics(version).items())
    if version.aliases:
        parts.append(f"[{', '.join(version.aliases)}]")
    return "  ".join(parts)


def shown_metrics(version: ArtifactVersion) -> dict[str, float]:
    """Return the evaluation metrics that fit on a line."""
    from registry.naming import numeric_metrics

    metrics = numeric_metrics(version.metadata)
    names = [key for key in metrics if key.startswith("eval/") and not _is_speed(key)]
    return {key: metrics[key] for key in sorted(names)[:_METRICS_SHOWN]}


def _is_speed(key: str) -> bool:
    return key.endswith(("per_second", "runtime"))


def _document(listing: Listing) -> dict[str, Any]:
    from registry.naming import is_stub, numeric_metrics

    collection = listing.collection
    return {
        "entity": collection.entity,
        "project": collection.project,
        "collection": collection.name,
        "type": collection.type,
        "versions": [
            {
                "version": v.version,
                "digest": v.digest,
                "aliases": v.aliases,
                "metrics": numeric_metrics(v.metadata),
                "stub": is_stub(v),
                "size_bytes": v.size_bytes,
                "created_at": v.created_at,
            }
            for v in listing.versions
        ],
    }
