"""`registry promote`: move an alias, by metric or by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import rich_click as click

from registry.cli.completion import complete_name
from registry.cli.output import (
    json_errors,
    json_option,
    quiet_option,
    result,
    result_json,
    say,
)

if TYPE_CHECKING:
    from registry.promote import Promotion


@click.command()
@click.argument("name", shell_complete=complete_name)
@click.argument("alias")
@click.option("--by", metavar="METRIC", help="Choose the version with the best METRIC.")
@click.option("--mode", type=click.Choice(["max", "min"]), help="Default: min for *loss, else max.")
@click.option(
    "--min-improvement", type=float, metavar="X", help="Refuse (exit 6) a smaller gain than X."
)
@click.option("--reason", metavar="TEXT", help="Kept in the history.")
@click.option("--dry-run", is_flag=True, help="Compare and say; change nothing.")
@json_option
@quiet_option
def command(
    name: str,
    alias: str,
    by: str | None,
    mode: str | None,
    min_improvement: float | None,
    reason: str | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Move ALIAS to the best version of a collection, or to a version by name.

    \b
    registry promote run-bert best --by eval/f1
    registry promote run-bert:v1 production
    """
    from registry.promote import promote

    with json_errors(as_json):
        done = promote(
            name,
            alias,
            by=by,
            mode=mode,
            min_improvement=min_improvement,
            reason=reason,
            dry_run=dry_run,
        )
    report(done, as_json=as_json, quiet=quiet)


def report(done: Promotion, *, as_json: bool, quiet: bool) -> None:
    """Print what was done: the move on stdout, the comparison on stderr."""
    if as_json:
        result_json(done)
        return
    for candidate in done.candidates:
        shown = candidate.excluded or f"{candidate.value:.6g}"
        chosen = "  <- chosen" if candidate.version == done.to_version else ""
        say(f"{candidate.version:<5} {done.metric} {shown}{chosen}", quiet=quiet)
    result(_sentence(done))
    if done.run_url:
        say(f"recorded as {done.run_url}", quiet=quiet)


def _sentence(done: Promotion) -> str:
    if done.from_version == done.to_version:
        return f"{done.collection}: {done.alias} is at {done.to_version} already"
    verb = "would move" if done.dry_run else "moved"
    source = f" from {done.from_version}" if done.from_version else ""
    return f"{done.collection}: {done.alias} {verb}{source} to {done.to_version}"
