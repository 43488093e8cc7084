"""`registry completion`: completion for the shell; commands, options and cached names.

Names come from the cache alone: pressing a key never asks the network.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import rich_click as click

from registry.cli.output import result

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_PROGRAMS = ("registry", "runport")
_HOW = {
    "bash": '# Add to ~/.bashrc:  eval "$(registry completion bash)"\n'
    "# Names hold colons, at which bash would split them.\n"
    "COMP_WORDBREAKS=${COMP_WORDBREAKS//:}\n",
    "zsh": "#compdef registry runport\n"
    '# Add to ~/.zshrc, after compinit:  eval "$(registry completion zsh)"\n',
    "fish": "# Write to ~/.config/fish/completions/registry.fish\n",
}


@click.command()
@click.argument("shell", type=click.Choice(sorted(_HOW)))
def command(shell: str) -> None:
    """Print what makes the shell complete commands, options and cached names.

    \b
    bash:  eval "$(registry completion bash)"      in ~/.bashrc
    zsh:   eval "$(registry completion zsh)"       in ~/.zshrc
    fish:  registry completion fish > ~/.config/fish/completions/registry.fish
    """
    result(script(shell))


def script(shell: str) -> str:
    """Return the completion script of a shell for both names of the program."""
    from click.shell_completion import get_completion_class

    from registry.cli import cli

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"No completion for {shell}.")
    sources = [
        kind(cli, {}, program, f"_{program.upper()}_COMPLETE").source() for program in _PROGRAMS
    ]
    lines = "\n".join(re.sub(r"^#compdef .*\n", "", source) for source in sources)
    return _HOW[shell] + lines


def complete_name(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return cached names that begin so: collections, then their versions and aliases."""
    from click.shell_completion import CompletionItem

    from registry.config import Settings
    from registry.errors import RegistryError
    from registry.store.names import cached_names

    try:
        settings = Settings.from_environment()
        names = cached_names(settings.cache_dir, settings.base_url or "", settings.project)
    except (RegistryError, OSError):
        return []
    if ":" not in incomplete:
        # First the collections: with all their versions the list would be long.
        whole = {name for name in names if name.startswith(incomplete)}
        bare = {name.partition(":")[0] for name in whole}
        names = sorted(bare) if len(bare) > 1 else sorted(bare | whole)
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
