"""`registry pull`: a version into the cache; its path on stdout."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import rich_click as click

from registry.cli.completion import complete_name
from registry.cli.output import json_errors, json_option, quiet_option, result, result_json, say

if TYPE_CHECKING:
    from registry.pulled import PulledVersion


@click.command()
@click.argument("name", shell_complete=complete_name)
@click.option("--all", "everything", is_flag=True, help="Also what serving does not need.")
@click.option("--include", multiple=True, metavar="PATTERN", help="Only files that match.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Leave out files that match.")
@click.option(
    "--base",
    metavar="REF",
    help="Base model of a PEFT adapter: an artifact or a folder; default: what it records.",
)
@click.option("--offline", is_flag=True, help="Never touch the network.")
@click.option("--refresh", is_flag=True, help="Ask the server even for a pinned, cached version.")
@click.option("--verify", is_flag=True, help="Hash cached files again.")
@json_option
@quiet_option
def command(
    name: str,
    everything: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    base: str | None,
    offline: bool,
    refresh: bool,
    verify: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Fetch a version, verified, into the cache, and print its path.

    NAME is `[entity/][project/]collection[:version|:alias|:best(metric)|:step(n)][@digest]`,
    the address of an artifact's page, or a local folder (`./model`).
    """
    from registry.config import Settings
    from registry.content import Selection
    from registry.pull import pull

    with json_errors(as_json):
        settings = Settings.from_environment()
        if offline:
            settings = dataclasses.replace(settings, offline=True)
        pulled = pull(
            name,
            settings=settings,
            progress=_progress(quiet),
            selection=Selection(everything, include, exclude),
            verify=verify,
            refresh=refresh,
            base=base,
        )
    if as_json:
        result_json(_document(pulled))
        return
    for line in describe(pulled):
        say(line, quiet=quiet)
    result(str(pulled.path))


def _progress(quiet: bool) -> Any:
    import sys

    if quiet or not sys.stderr.isatty():
        return None
    from registry.cli.progress import Bar

    return Bar()


def describe(pulled: PulledVersion) -> list[str]:
    """Say in words what was pulled: pinned name, files, sizes, time, what was left out."""
    import datetime

    from registry.store.records import KnownRef

    version = pulled.version
    skipped = {file.path for file in pulled.skipped}
    files = [file for file in version.files if file.path not in skipped]
    size_bytes = sum(file.size_bytes for file in files)
    how = "cached" if pulled.cached else f"{size_text(pulled.fetched_bytes)} fetched"
    lines = [
        f"{version.qualified_name}  {files_text(len(files))}, {size_text(size_bytes)}, {how}, "
        f"{pulled.seconds:.2f} s"
    ]
    if pulled.skipped:
        saved_bytes = sum(file.size_bytes for file in pulled.skipped)
        names = ", ".join(sorted(skipped)[:4]) + (", …" if len(skipped) > 4 else "")
        lines.append(f"left out {files_text(len(skipped))}, {size_text(saved_bytes)}: {names}")
    if pulled.base is not None:
        lines.append(f"with its base model {pulled.base.version.qualified_name}")
    if pulled.known_at is not None:
        age_s = KnownRef("", "", "", pulled.known_at).age_s(datetime.datetime.now(datetime.UTC))
        lines.append(f"offline: the alias pointed here {age_text(age_s)} ago")
    return lines


def files_text(count: int) -> str:
    """Return `1 file` or `3 files`."""
    return "1 file" if count == 1 else f"{count} files"


def size_text(size_bytes: int) -> str:
    """Return `1.3 MB`."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def age_text(age_s: float) -> str:
    """Return `3 minutes`."""
    for unit, length_s in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if age_s >= length_s:
            count = int(age_s // length_s)
            return f"{count} {unit}{'s' if count != 1 else ''}"
    return "less than a minute"


def _document(pulled: PulledVersion) -> dict[str, Any]:
    version = pulled.version
    return {
        "name": version.qualified_name,
        "path": str(pulled.path),
        "digest": pulled.digest,
        "wandb_digest": version.digest,
        "aliases": version.aliases,
        "cached": pulled.cached,
        "fetched_bytes": pulled.fetched_bytes,
        "seconds": round(pulled.seconds, 4),
        "files": [{"path": f.path, "size_bytes": f.size_bytes} for f in version.files],
        "skipped": [dataclasses.asdict(file) for file in pulled.skipped],
        "known_at": pulled.known_at,
        "base": _document(pulled.base) if pulled.base is not None else None,
    }
