"""`registry verify`: hash what is cached again, and repair it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import rich_click as click

from registry.cli.completion import complete_name
from registry.cli.output import json_errors, json_option, quiet_option, result, result_json, say
from registry.errors import IntegrityError, UsageError

if TYPE_CHECKING:
    from registry.verify import Problem


@click.command()
@click.argument("names", nargs=-1, shell_complete=complete_name)
@click.option("--all", "everything", is_flag=True, help="Everything in the cache.")
@click.option("--offline", is_flag=True, help="Never touch the network; repair nothing.")
@json_option
@quiet_option
@click.pass_context
def command(
    ctx: click.Context,
    names: tuple[str, ...],
    everything: bool,
    offline: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Hash cached versions and their exports again; what is wrong is pulled again.

    NAMES are as for `registry pull`, or `@` and a digest as `registry cache list` shows it. What is
    wrong is moved into quarantine in the cache folder. Exit status 5: something was wrong and
    could not be repaired.
    """
    from registry.config import Settings
    from registry.verify import verify

    with json_errors(as_json):
        if everything == bool(names):
            raise UsageError("Name versions, or say --all.", hint="registry verify --all")
        settings = Settings.from_environment()
        if offline:
            settings = dataclasses.replace(settings, offline=True)
        done = verify(names, settings=settings)
    if as_json:
        result_json(done)
    else:
        from registry.cli.pull import size_text

        for problem in done.problems:
            result(_line(problem))
        say(
            f"{done.versions} versions and {done.exports} exports, {done.files} files, "
            f"{size_text(done.size_bytes)}: {_verdict(done.problems)}",
            quiet=quiet,
        )
    if not done.sound:
        ctx.exit(IntegrityError.exit_code)


def _line(problem: Problem) -> str:
    state = "repaired" if problem.repaired else "WRONG"
    files = f" ({', '.join(problem.files[:4])}{', …' if len(problem.files) > 4 else ''})"
    return f"{state:<8}  {problem.name}{files if problem.files else ''}  {problem.detail}"


def _verdict(problems: tuple[Problem, ...]) -> str:
    left = sum(not problem.repaired for problem in problems)
    if not problems:
        return "all as it was"
    return f"{len(problems)} wrong, {len(problems) - left} repaired"
