"""The command line: parse, call, print, exit code; nothing else.

`main` is the entry point of both `registry` and `runport`. Commands are loaded
only when they are named, so that `--help` stays quick: each lives in a module
of its own that exposes a click command named `command`.
"""

from __future__ import annotations

import importlib
import os
import sys

import rich_click as click

from registry.cli.output import run_guarded

COMMANDS: dict[str, tuple[str, str]] = {
    "backend": ("registry.cli.backend", "Run the embedded W&B-compatible backend."),
    "cache": ("registry.cli.cache", "Show, prune and pin what is in the cache."),
    "completion": ("registry.cli.completion", "Complete commands and names in the shell."),
    "diff": ("registry.cli.diff", "Compare two versions: files, configuration, metrics."),
    "doctor": ("registry.cli.doctor", "Check that this machine is ready, and say what is not."),
    "export": ("registry.cli.export", "Make a version fast: ONNX with a parity report."),
    "inspect": ("registry.cli.inspect", "Show what is known about a collection or version."),
    "key": ("registry.cli.key", "Make an API key for a server."),
    "list": ("registry.cli.list", "List model collections and their versions."),
    "predict": ("registry.cli.predict", "Ask a running server for a prediction."),
    "promote": ("registry.cli.promote", "Move an alias, by metric or by name."),
    "pull": ("registry.cli.pull", "Fetch a version, verified, into the cache."),
    "push": ("registry.cli.push", "Log a folder as a version."),
    "rollback": ("registry.cli.rollback", "Undo the last move of an alias."),
    "serve": ("registry.cli.serve", "Answer predictions over HTTP."),
    "verify": ("registry.cli.verify", "Hash what is cached again, and repair it."),
}
"""Command name -> (module, one-line help shown before the module is imported)."""


class LazyGroup(click.RichGroup):
    """A group whose commands are imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all command names, sorted."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a stand-in that carries the summary, for help and completion lists."""
        if cmd_name not in COMMANDS:
            return None
        summary = COMMANDS[cmd_name][1]
        return click.Command(cmd_name, short_help=summary, help=summary)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Import the command that is about to run, or say which one was meant."""
        name = args[0]
        if name not in COMMANDS:
            import difflib

            near = difflib.get_close_matches(name, COMMANDS, n=1)
            guess = f" Did you mean {near[0]!r}?" if near else " See `registry --help`."
            raise click.UsageError(f"No such command {name!r}.{guess}", ctx)
        return name, load_command(name), args[1:]


def load_command(name: str) -> click.Command:
    """Import the module of command `name` and return its click command.

    Raises:
        KeyError: there is no such command.
        TypeError: the module's `command` is not a click command.
    """
    command = importlib.import_module(COMMANDS[name][0]).command
    if not isinstance(command, click.Command):
        raise TypeError(f"{COMMANDS[name][0]}.command is not a click command")
    return command


def _version() -> str:
    import importlib.metadata

    return importlib.metadata.version("runport")


def _print_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"runport {_version()}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version and exit.",
)
def cli() -> None:
    """From a Trainer's W&B artifact to a measured, promotable prediction service.

    Exit status: 0 ok, 1 failure, 2 usage, 3 not found, 4 authentication, 5 integrity,
    6 a gate refused, 7 unavailable, 130 interrupted.
    """


def main() -> None:
    """Run the command line and exit with its documented status."""
    status = run_guarded(lambda: cli.main(standalone_mode=False, prog_name=_program_name()))
    sys.exit(status)


def _program_name() -> str:
    name = os.path.basename(sys.argv[0])
    return name if name in {"registry", "runport"} else "registry"
