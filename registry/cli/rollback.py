"""`registry rollback`: return an alias to where it was."""

from __future__ import annotations

import rich_click as click

from registry.cli.completion import complete_name
from registry.cli.output import json_errors, json_option, quiet_option
from registry.cli.promote import report


@click.command()
@click.argument("name", shell_complete=complete_name)
@click.argument("alias")
@click.option("--reason", metavar="TEXT", help="Kept in the history.")
@click.option("--dry-run", is_flag=True, help="Say what would be done; change nothing.")
@json_option
@quiet_option
def command(
    name: str, alias: str, reason: str | None, dry_run: bool, as_json: bool, quiet: bool
) -> None:
    """Return ALIAS to the version that it left with its last recorded move."""
    from registry.promote import rollback

    with json_errors(as_json):
        done = rollback(name, alias, reason=reason, dry_run=dry_run)
    report(done, as_json=as_json, quiet=quiet)
