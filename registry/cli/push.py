"""`registry push`: a folder as a version of a collection; its pinned name on stdout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from registry.cli.completion import complete_name
from registry.cli.output import json_errors, json_option, quiet_option, result, result_json, say
from registry.errors import UsageError

if TYPE_CHECKING:
    from registry.push import Pushed


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.argument("name", shell_complete=complete_name)
@click.option("--alias", "aliases", multiple=True, metavar="ALIAS", help="Besides `latest`.")
@click.option(
    "--metadata",
    "metadata_texts",
    multiple=True,
    metavar="KEY=VALUE|@FILE.json",
    help="A fact such as eval/f1=0.9; values are read as JSON where they are. Repeatable.",
)
@click.option("--description", metavar="TEXT", help="Of the version.")
@click.option("--type", "type_", default="model", show_default=True, help="The artifact's type.")
@click.option("--from-run", metavar="RUN", help="Run that made it: its id, or entity/project/id.")
@click.option("--all", "everything", is_flag=True, help="Also what serving does not need.")
@click.option("--include", multiple=True, metavar="PATTERN", help="Only files that match.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Leave out files that match.")
@click.option("--dry-run", is_flag=True, help="Check the files and say; upload nothing.")
@json_option
@quiet_option
def command(
    folder: Path,
    name: str,
    aliases: tuple[str, ...],
    metadata_texts: tuple[str, ...],
    description: str | None,
    type_: str,
    from_run: str | None,
    everything: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Log DIR as a version of NAME, and print the version's pinned name.

    The same bytes are not uploaded twice: the version that has them is printed. Pickles,
    code and references are refused as they are by `registry pull`.

    \b
    registry push ./out run-bert --alias best --metadata eval/f1=0.91
    """
    from registry.content import Selection
    from registry.push import Facts, push

    with json_errors(as_json):
        facts = Facts(type_, aliases, parse_metadata(metadata_texts), description, from_run)
        pushed = push(
            folder,
            name,
            facts,
            selection=Selection(everything, include, exclude),
            dry_run=dry_run,
        )
    if as_json:
        result_json(pushed)
        return
    for line in _words(pushed):
        say(line, quiet=quiet)
    result(pushed.name)


def parse_metadata(texts: tuple[str, ...]) -> dict[str, Any]:
    """Return the values of `key=value` and `@file.json` texts; later ones win.

    Raises:
        UsageError: a text is neither, or the file holds no JSON object.
    """
    values: dict[str, Any] = {}
    for text in texts:
        if text.startswith("@"):
            values.update(_read_object(Path(text[1:])))
            continue
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise UsageError(
                f"{text!r} is neither KEY=VALUE nor @FILE.json.",
                hint="For example: --metadata eval/f1=0.91",
            )
        values[key] = _value(value)
    return values


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_number)
    except ValueError:
        return text


def _no_number(text: str) -> Any:
    # NaN and Infinity are no JSON, and the server refuses them.
    raise ValueError(text)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path} cannot be read as JSON: {error}.", hint="Name a JSON file after the @."
        ) from error
    if not isinstance(document, dict):
        raise UsageError(f"{path} holds no JSON object.", hint='Write {"eval/f1": 0.91}.')
    return document


def _words(pushed: Pushed) -> list[str]:
    from registry.cli.pull import size_text

    count = f"{len(pushed.files)} files, {size_text(pushed.size_bytes)}"
    if pushed.dry_run:
        lines = [f"would log {count} as a version of {pushed.name}"]
        lines += [f"  {size_text(file.size_bytes):>9}  {file.path}" for file in pushed.files]
    elif pushed.created:
        lines = [f"logged {count}", f"by {pushed.run_url}"]
    else:
        lines = [f"nothing new: {pushed.name} has these {count} already"]
    if pushed.skipped:
        names = ", ".join(f"{file.path} ({file.reason})" for file in pushed.skipped[:4])
        more = ", …" if len(pushed.skipped) > 4 else ""
        lines.append(f"left out {len(pushed.skipped)} files: {names}{more}")
    return lines + list(pushed.warnings)
