"""`registry pull`: a version into the cache; its path on stdout."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import rich_click as click

from registry.cli.completion import complete_name
from registry.cli.output import json_errors, json_option, quiet_option, result, result_json, say
from registry.cli.words import age_text as age_text
from registry.cli.words import describe as describe
from registry.cli.words import files_text as files_text
from registry.cli.words import size_text as size_text

if TYPE_CHECKING:
    from registry.pulled import PulledVersion


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_name)
@click.option("--all", "everything", is_flag=True, help="Also what serving does not need.")
@click.option("--include", multiple=True, metavar="PATTERN", help="Only files that match.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Leave out files that match.")
@click.option(
    "--base",
    metavar="REF",
    help="Base model of a PEFT adapter: an artifact or a folder; default: what it records.",
)
@click.option(
    "--allow-reference",
    "allow_references",
    multiple=True,
    metavar="PLACE",
    help="Follow references into s3://bucket/prefix, https://host/path or file:///folder.",
)
@click.option(
    "--allow-pickle",
    is_flag=True,
    help="Convert pickled weights (.bin, .pt, .pth, .ckpt) to safetensors; nothing of them is run.",
)
@click.option("--offline", is_flag=True, help="Never touch the network.")
@click.option("--refresh", is_flag=True, help="Ask the server even for a pinned, cached version.")
@click.option("--verify", is_flag=True, help="Hash cached files again.")
@json_option
@quiet_option
def command(
    names: tuple[str, ...],
    everything: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    base: str | None,
    allow_references: tuple[str, ...],
    allow_pickle: bool,
    offline: bool,
    refresh: bool,
    verify: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Fetch versions, verified, into the cache, and print their paths, one a line.

    NAME is `[entity/][project/]collection[:version|:alias|:best(metric)|:step(n)][@digest]`,
    the address of an artifact's page, or a local folder (`./model`).
    """
    from registry.config import Settings
    from registry.content import Selection
    from registry.hub import WandbHub
    from registry.pull import pull

    documents = []
    with json_errors(as_json):
        settings = Settings.from_environment()
        settings = dataclasses.replace(
            settings,
            offline=offline or settings.offline,
            allow_pickle=allow_pickle or settings.allow_pickle,
            allow_references=(*settings.allow_references, *allow_references),
        )
        hub = WandbHub(settings)  # One for all names: it logs in once.
        for name in names:
            pulled = pull(
                name,
                settings=settings,
                progress=_progress(quiet),
                selection=Selection(everything, include, exclude),
                verify=verify,
                refresh=refresh,
                base=base,
                hub=hub,
            )
            documents.append(_document(pulled))
            if not as_json:
                _print(pulled, quiet)
    if as_json:
        result_json(documents[0] if len(names) == 1 else documents)


def _print(pulled: PulledVersion, quiet: bool) -> None:
    for line in describe(pulled):
        say(line, quiet=quiet)
    result(str(pulled.path))


def _progress(quiet: bool) -> Any:
    import sys

    if quiet or not sys.stderr.isatty():
        return None
    from registry.cli.progress import Bar

    return Bar()


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
        "conversion": dataclasses.asdict(pulled.conversion) if pulled.conversion else None,
        "base": _document(pulled.base) if pulled.base is not None else None,
    }
