"""What every command prints and how it ends.

Results go to stdout, words to stderr; `--json` prints one JSON document on
stdout, also for errors. Commands raise; `run_guarded` turns what they raise
into words and an exit status.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import rich_click as click

from registry.errors import RegistryError, UsageError

EXIT_INTERRUPTED = 130

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document on stdout."
)
"""Shared `--json` flag; the command's parameter is `as_json`."""

quiet_option = click.option("-q", "--quiet", is_flag=True, help="No words on stderr but errors.")
"""Shared `-q/--quiet` flag."""


def result(text: str) -> None:
    """Print a result line on stdout."""
    click.echo(text)


def say(text: str, *, quiet: bool = False) -> None:
    """Print words for people on stderr, unless quiet."""
    if not quiet:
        click.echo(text, err=True)


def result_json(document: Any) -> None:
    """Print one JSON document on stdout (msgspec's types, dataclasses, paths as text)."""
    raw = msgspec.json.encode(document, enc_hook=str)
    click.echo(msgspec.json.format(raw, indent=2).decode())


@contextlib.contextmanager
def json_errors(as_json: bool) -> Iterator[None]:
    """While active and `as_json`, a RegistryError is also printed as JSON on stdout."""
    try:
        yield
    except RegistryError as error:
        if as_json:
            result_json(error.as_dict())
        raise


def run_guarded(action: Callable[[], Any]) -> int:
    """Run a command; print what went wrong on stderr; return the exit status.

    Without `standalone_mode`, click returns the status of `ctx.exit()` as an int.
    """
    try:
        status = action()
    except click.Abort:
        say("Interrupted.")
        return EXIT_INTERRUPTED
    except KeyboardInterrupt:
        say("Interrupted.")
        return EXIT_INTERRUPTED
    except click.ClickException as error:
        if "--json" in sys.argv[1:]:
            # Of a command line that cannot be parsed this is all that can be known.
            usage = UsageError(error.format_message(), hint="See --help.")
            result_json(usage.as_dict())
        error.show()
        return error.exit_code
    except RegistryError as error:
        _show(error)
        return error.exit_code
    return status if isinstance(status, int) else 0


def _show(error: RegistryError) -> None:
    click.echo(f"Error: {error.message}", err=True)
    if error.hint:
        click.echo(f"  {error.hint}", err=True)
