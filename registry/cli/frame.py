"""The group of all commands: help, lazy loading, did-you-mean."""

from __future__ import annotations

import importlib

import rich_click as click

from registry.cli import COMMANDS


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
