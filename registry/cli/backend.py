"""`registry backend`: run the embedded backend, or print how to reach a running one."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

import rich_click as click

from registry.cli.output import json_option, result, result_json, say
from registry.config import Settings

data_option = click.option(
    "--data",
    "data_dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Data folder [default: RUNPORT_DATA_DIR/backend].",
)


@click.group(invoke_without_command=True)
@data_option
@click.option("--host", default="127.0.0.1", show_default=True, help="A loopback address.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8200,
    show_default=True,
    help="TCP port; 0 takes a free one.",
)
@click.option("--entity", default="local", show_default=True, help="The single user's name.")
@click.pass_context
def command(ctx: click.Context, data_dir: Path | None, host: str, port: int, entity: str) -> None:
    """Run the embedded W&B-compatible backend in the foreground.

    For one user on one machine: it listens on loopback only and keeps runs, artifacts and
    registry collections in a data folder, so that the unmodified wandb SDK works with no
    account and no network. It is not a replacement for W&B: no teams, no sweeps, no reports,
    no launch.

    Prints one JSON line {base_url, pid, entity, data_dir} on stdout when it is ready. In
    another shell: eval "$(registry backend env)".
    """
    ctx.obj = data_dir
    if ctx.invoked_subcommand is not None:
        return
    from registry.backend.server import print_ready, serve
    from registry.backend.settings import BackendSettings

    def announce(ready: Mapping[str, object]) -> None:
        print_ready(ready)
        say(f"Runs and artifacts: {ready['base_url']}  (data in {ready['data_dir']})")
        say(f'Point the SDK at it: eval "$(registry backend env{_data_words(data_dir)})"')
        say("For one user on loopback; not a replacement for W&B. Ctrl-C stops it.")

    folder = _folder(data_dir)
    serve(BackendSettings(data_dir=folder, host=host, port=port, entity=entity), announce)


@command.command("env")
@data_option
@json_option
@click.pass_context
def print_environment(ctx: click.Context, data_dir: Path | None, as_json: bool) -> None:
    """Print the exports that point the SDK, and anything built on it, at a running backend."""
    from registry.backend.running import find_running

    variables = find_running(_folder(data_dir or ctx.obj)).environment()
    if as_json:
        result_json(variables)
        return
    for name, value in variables.items():
        result(f"export {name}={shlex.quote(value)}")


def _folder(data_dir: Path | None) -> Path:
    if data_dir is not None:
        return data_dir.expanduser().absolute()
    return Settings.from_environment().data_dir / "backend"


def _data_words(data_dir: Path | None) -> str:
    return f" --data {shlex.quote(str(data_dir))}" if data_dir else ""
