"""`registry inspect`: everything known about a collection or a version."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from registry.cli.output import json_errors, json_option, result, result_json

if TYPE_CHECKING:
    from registry.config import Settings
    from registry.store import Committed
    from registry.versions import ArtifactVersion


@click.command()
@click.argument("name")
@click.option("--files", is_flag=True, help="List the files with size and digest.")
@json_option
def command(name: str, files: bool, as_json: bool) -> None:
    """Show what is known about a version: origin, aliases, metadata, cache, exports.

    NAME as for `registry pull`; without a version, `latest` is shown.
    """
    from registry.config import Settings
    from registry.lookup import resolve

    with json_errors(as_json):
        settings = Settings.from_environment()
        version = resolve(name, settings=settings)
        document = describe(version, settings)
    if as_json:
        result_json(document)
        return
    for line in _lines(document, with_files=files):
        result(line)


def describe(version: ArtifactVersion, settings: Settings) -> dict[str, Any]:
    """Return the document that `--json` prints."""
    committed = _cached(version, settings)
    return {
        "name": version.qualified_name,
        "type": version.type,
        "digest": version.digest,
        "created_at": version.created_at,
        "size_bytes": version.size_bytes,
        "aliases": list(version.aliases),
        "run": {"id": version.run_id, "name": version.run_name} if version.run_id else None,
        "metadata": dict(version.metadata),
        "files": [
            {
                "path": file.path,
                "size_bytes": file.size_bytes,
                "digest": str(file.digest) if file.digest else None,
                "reference": file.reference,
            }
            for file in version.files
        ],
        "cache": _cache_facts(committed) if committed else None,
        "exports": _exports(settings.cache_dir / "exports", committed) if committed else [],
    }


def _cached(version: ArtifactVersion, settings: Settings) -> Committed | None:
    from registry.content import Selection
    from registry.store import Store

    store = Store(settings.cache_dir, settings.base_url or "")
    for selection in (Selection(), Selection(everything=True)):
        found = store.find(
            version.entity,
            version.project,
            version.collection,
            version.version,
            selection.key,
        )
        if found is not None and found.record.version.digest == version.digest:
            return found
    return None


def _cache_facts(committed: Committed) -> dict[str, Any]:
    return {
        "path": str(committed.path),
        "snapshot": committed.record.snapshot,
        "committed_at": committed.record.committed_at,
        "skipped": [file.path for file in committed.record.skipped],
    }


def _exports(folder: Path, committed: Committed) -> list[dict[str, Any]]:
    from registry.export.store import Export, list_records

    return [
        {
            "path": str(record.path),
            "task": record.task,
            "engine": record.engine,
            "precision": record.precision,
            "refused": not isinstance(record, Export),
            "parity": record.report,
        }
        for record in list_records(folder, committed.record.snapshot)
    ]


def _lines(document: dict[str, Any], *, with_files: bool) -> list[str]:
    from registry.cli.pull import size_text

    run, cache = document["run"], document["cache"]
    lines = [
        document["name"],
        f"  type      {document['type']}",
        f"  digest    {document['digest']}",
        f"  size      {size_text(document['size_bytes'])}, {len(document['files'])} files",
        f"  created   {document['created_at'] or 'unknown'}",
        f"  run       {run['name']} ({run['id']})" if run else "  run       unknown",
        f"  aliases   {', '.join(document['aliases']) or 'none'}",
        f"  cached    {cache['path'] if cache else 'no'}",
    ]
    lines += _section("metadata", [f"{k} = {v}" for k, v in sorted(document["metadata"].items())])
    lines += _section("exports", [_export_line(export) for export in document["exports"]])
    if with_files:
        rows = [f"{size_text(f['size_bytes']):>9}  {f['path']}" for f in document["files"]]
        lines += _section("files", rows)
    return lines


def _section(title: str, rows: list[str]) -> list[str]:
    return [f"  {title}", *(f"    {row}" for row in rows)] if rows else []


def _export_line(export: dict[str, Any]) -> str:
    words = f"{export['task']} {export['engine']} {export['precision']}"
    verdict = "refused: outside its tolerance" if export["refused"] else export["path"]
    return f"{words}  largest difference {export['parity'].max_abs_diff:.2g}  {verdict}"
