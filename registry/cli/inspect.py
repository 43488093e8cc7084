"""`registry inspect`: everything known about a collection or a version."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import rich_click as click

from registry.cli.completion import complete_name
from registry.cli.output import json_errors, json_option, result, result_json

if TYPE_CHECKING:
    from registry.config import Settings
    from registry.hub import Hub
    from registry.store import Committed
    from registry.versions import ArtifactVersion

_GROUPED = 20
"""Newest versions that are grouped by run; each costs questions to the server."""


@click.command()
@click.argument("name", shell_complete=complete_name)
@click.option("--files", is_flag=True, help="List the files with size and digest.")
@click.option("--lineage", is_flag=True, help="Which runs logged and used it, and from what.")
@json_option
def command(name: str, files: bool, lineage: bool, as_json: bool) -> None:
    """Show what is known about a version: origin, aliases, metadata, cache, exports.

    NAME as for `registry pull`; without a version, `latest` is shown, and which run logged each
    of the newest versions: runs of the same name share a collection.
    """
    from registry.config import Settings
    from registry.lookup import open_hub, resolve
    from registry.reference import parse_artifact

    with json_errors(as_json):
        settings = Settings.from_environment()
        hub = open_hub(settings)
        version = resolve(name, settings=settings, hub=hub)
        document = describe(version, settings)
        ref = parse_artifact(name)
        if ref.selector is None and ref.digest is None:
            document["runs"] = _runs(version, settings, hub)
        if lineage:
            document["lineage"] = dataclasses.asdict(hub.lineage(version))
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
        "exports": _exports(settings, version),
        "tunings": _tunings(settings, version),
    }


def _runs(version: ArtifactVersion, settings: Settings, hub: Hub) -> list[dict[str, Any]]:
    """Return the newest versions of the collection, grouped by the run that logged them."""
    from registry.lookup import group_by_run, list_collection

    name = f"{version.entity}/{version.project}/{version.collection}"
    newest = list_collection(name, settings=settings, hub=hub).versions[:_GROUPED]
    return [
        {
            "run": {"id": group.run_id, "name": group.run_name} if group.run_id else None,
            "versions": [
                {"version": v.version, "aliases": list(v.aliases), "created_at": v.created_at}
                for v in group.versions
            ],
        }
        for group in group_by_run(newest, hub)
    ]


def _run_line(group: dict[str, Any]) -> str:
    run = group["run"]
    versions = ", ".join(
        v["version"] + (f" ({', '.join(v['aliases'])})" if v["aliases"] else "")
        for v in group["versions"]
    )
    return f"{run['name']} ({run['id']}): {versions}" if run else f"unknown: {versions}"


def _cached(version: ArtifactVersion, settings: Settings) -> Committed | None:
    from registry.content import Selection
    from registry.store import Store

    store = Store(settings.cache_dir, settings.base_url or "")
    for key in (*Selection().keys, Selection(everything=True).key):
        found = store.find(
            version.entity,
            version.project,
            version.collection,
            version.version,
            key,
        )
        if found is not None and found.record.version.digest == version.digest:
            return found
    return None


def _cache_facts(committed: Committed) -> dict[str, Any]:
    conversion = committed.record.conversion
    return {
        "path": str(committed.path),
        "snapshot": committed.record.snapshot,
        "committed_at": committed.record.committed_at,
        "skipped": [file.path for file in committed.record.skipped],
        "conversion": dataclasses.asdict(conversion) if conversion else None,
    }


def _exports(settings: Settings, version: ArtifactVersion) -> list[dict[str, Any]]:
    """Return the version's exports and the refused ones, each with its parity report.

    An adapter has one snapshot, and so its own exports, for each base model it was pulled with.
    """
    import msgspec

    from registry.export import list_records

    return [
        {
            **msgspec.to_builtins(record, enc_hook=str),
            "served": record.report.passed,
            "summary": record.report.summary(),
        }
        for snapshot in _snapshots(settings, version)
        for record in list_records(settings.cache_dir / "exports", snapshot)
    ]


def _tunings(settings: Settings, version: ArtifactVersion) -> list[dict[str, Any]]:
    """Return what `registry tune` measured of the version, and whether it holds here and now."""
    import msgspec

    from registry.tuning import list_tunings

    return [
        {
            **msgspec.to_builtins(found.tuning),
            "path": str(found.path),
            "summary": found.tuning.summary(),
            "stale": found.stale,
        }
        for snapshot in _snapshots(settings, version)
        for found in list_tunings(settings.cache_dir, snapshot)
    ]


def _snapshots(settings: Settings, version: ArtifactVersion) -> list[str]:
    from registry.store import Store

    records = Store(settings.cache_dir, settings.base_url or "").records.of_collection(
        version.entity, version.project, version.collection
    )
    return list(
        dict.fromkeys(
            record.snapshot
            for record in records
            if (record.version.version, record.version.digest) == (version.version, version.digest)
        )
    )


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
    if cache and cache["conversion"]:
        pairs = [f"{old} -> {new}" for old, new in cache["conversion"]["files"].items()]
        lines += _section("pickled weights, converted to safetensors", pairs)
    lines += _section("runs", [_run_line(group) for group in document.get("runs", ())])
    lines += _section("metadata", [f"{k} = {v}" for k, v in sorted(document["metadata"].items())])
    exports = [line for export in document["exports"] for line in _export_lines(export)]
    lines += _section("exports", exports)
    lines += _section("tuned", [_tuning_line(tuning) for tuning in document["tunings"]])
    if "lineage" in document:
        lines += _lineage_lines(document["lineage"])
    if with_files:
        rows = [f"{size_text(f['size_bytes']):>9}  {f['path']}" for f in document["files"]]
        lines += _section("files", rows)
    return lines


def _lineage_lines(lineage: dict[str, Any]) -> list[str]:
    logged_by = [lineage["logged_by"]] if lineage["logged_by"] else []
    return [
        *_section("logged by", [_link_line(run) for run in logged_by] or ["unknown"]),
        *_section("made from", list(lineage["made_from"]) or ["nothing that was recorded"]),
        *_section("used by", [_link_line(run) for run in lineage["used_by"]] or ["no run"]),
    ]


def _link_line(run: dict[str, Any]) -> str:
    job = f"  {run['job_type']}" if run["job_type"] else ""
    return f"{run['name']} ({run['id']}){job}  {run['url']}"


def _section(title: str, rows: list[str]) -> list[str]:
    return [f"  {title}", *(f"    {row}" for row in rows)] if rows else []


def _tuning_line(tuning: dict[str, Any]) -> str:
    held = f" (not used: {tuning['stale']})" if tuning["stale"] else ""
    return f"{tuning['task']}  {tuning['summary']}{held}"


def _export_lines(export: dict[str, Any]) -> list[str]:
    words = f"{export['task']} {export['engine']} {export['precision']}"
    verdict = export["path"] if export["served"] else "refused: outside its tolerance"
    lines = [f"{words}  {verdict}", f"  {export['summary']}"]
    if fusions := export.get("fusions"):
        lines.append(f"  graph: {', '.join(f'{name} {count}' for name, count in fusions.items())}")
    return lines
