"""`registry doctor`: is this machine ready, and what is the next step if not."""

from __future__ import annotations

import dataclasses

import rich_click as click

from registry.cli.output import json_errors, json_option, result, result_json, say

_SIGNS = {"ok": "ok", "warning": "warn", "failed": "FAIL", "skipped": "-"}


@click.command()
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Check the SDK, the login, the server, the cache, its disk and locks, and the engines.

    Exit status: that of the first check that failed; 0 if none did.
    """
    from registry.config import Settings
    from registry.doctor import examine
    from registry.hub import WandbHub

    with json_errors(as_json):
        settings = Settings.from_environment()
    # Whose key it is, is for the server to say.
    found = examine(settings, WandbHub(dataclasses.replace(settings, entity=None)))
    if as_json:
        result_json(found)
    else:
        for check in found.checks:
            result(f"{_SIGNS[check.status]:<5} {check.name:<8} {check.detail}")
            if check.hint:
                say(f"      {'':<8} {check.hint}")
    ctx.exit(found.exit_code)
