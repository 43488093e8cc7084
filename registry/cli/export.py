"""`registry export`: a version made fast, with proof that it answers the same."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import rich_click as click

from registry.cli.completion import complete_name
from registry.cli.output import json_errors, json_option, quiet_option, result, result_json, say

if TYPE_CHECKING:
    from registry.export import Export
    from registry.pulled import PulledVersion


@click.command()
@click.argument("name", shell_complete=complete_name)
@click.option("--task", help="What the model answers; default: as metadata or architecture say.")
@click.option(
    "--base",
    metavar="REF",
    help="Base model of a PEFT adapter: an artifact or a folder; default: what it records.",
)
@click.option(
    "--tolerance",
    type=float,
    metavar="DIFF",
    help="Largest difference of a logit to torch that is accepted.  [default: 1e-4]",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=1),
    metavar="SECONDS",
    help="Stop the exporter after this long.  [default: 900]",
)
@click.option("--force", is_flag=True, help="Export again, even if it was done or refused before.")
@json_option
@quiet_option
def command(
    name: str,
    task: str | None,
    base: str | None,
    tolerance: float | None,
    timeout_s: float | None,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Export a version to ONNX and compare it with torch; print the export's path.

    NAME is as for `registry pull`: an artifact's name or a local folder (`./model`). An export
    that differs by more than the tolerance is not kept (exit status 6), only its report is.
    A PEFT adapter is merged into its base model first.
    """
    from registry.cache import hold
    from registry.config import Settings
    from registry.export import DEFAULT_TIMEOUT_S, DEFAULT_TOLERANCE, export_model, task_in
    from registry.pull import pull

    with json_errors(as_json):
        settings = Settings.from_environment()
        pulled = pull(name, settings=settings, base=base)
        stages: list[str] = []

        def progress(stage: str) -> None:
            stages.append(stage)
            say(f"{pulled.version.short_name}: {stage}", quiet=quiet)

        # A prune meanwhile leaves alone what is being read.
        with hold(pulled.digest, settings=settings) or nullcontext():
            export = export_model(
                pulled.path,
                digest=pulled.digest,
                exports_dir=settings.cache_dir / "exports",
                task=task or task_in(pulled.version.metadata),
                tolerance=DEFAULT_TOLERANCE if tolerance is None else tolerance,
                timeout_s=DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s,
                force=force,
                progress=progress,
            )
    if as_json:
        result_json(_document(pulled, export, cached=not stages))
        return
    for line in describe(pulled, export, cached=not stages):
        say(line, quiet=quiet)
    result(str(export.path))


def describe(pulled: PulledVersion, export: Export, *, cached: bool) -> list[str]:
    """Say in words what was exported and how it compares with torch."""
    how = (
        "from the cache"
        if cached
        else f"{export.seconds:.1f} s, peak memory {export.peak_memory_bytes / 1e6:.0f} MB"
    )
    merged = f", merged into {pulled.base.version.qualified_name}" if pulled.base else ""
    return [
        f"{pulled.version.qualified_name}{merged}  "
        f"{export.task} {export.engine} {export.precision}, {how}",
        export.report.summary(),
    ]


def _document(pulled: PulledVersion, export: Export, *, cached: bool) -> dict[str, Any]:
    import msgspec

    document: dict[str, Any] = msgspec.to_builtins(export, enc_hook=str)
    return {"name": pulled.version.qualified_name, "cached": cached, **document}
