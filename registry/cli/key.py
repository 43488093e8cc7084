"""`registry key`: make an API key for a server."""

from __future__ import annotations

import os
from pathlib import Path

import rich_click as click

from registry.cli.output import result, say
from registry.errors import StorageError


@click.command("key", context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--file",
    "key_file",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The key's hash is added here, for `registry serve --api-key-file`.",
)
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(["predict", "read", "admin"]),
    default=("predict", "read"),
    show_default=True,
    help="What the key may do; repeat for several.",
)
def command(key_file: Path, scopes: tuple[str, ...]) -> None:
    """Make a key, print it once, and keep only its hash."""
    from serving.keys import make_key

    text, stored = make_key(frozenset(scopes))
    try:
        # 0600 from the start: others need not even know the ids.
        descriptor = os.open(key_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "a", encoding="utf-8") as stream:
            stream.write(stored.line() + "\n")
    except OSError as error:
        raise StorageError(
            f"{key_file} cannot be written: {error.strerror}.", hint="Choose another --file."
        ) from error
    say(f"Added key {stored.id} to {key_file}. It is shown this once:")
    result(text)
