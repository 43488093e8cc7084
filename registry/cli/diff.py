"""`registry diff`: what differs between two versions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import rich_click as click

from registry.cli.completion import complete_name
from registry.cli.output import json_errors, json_option, result, result_json, say

if TYPE_CHECKING:
    from registry.diff import Difference, FileChange, ValueChange

_SIGNS = {"added": "+", "removed": "-", "changed": "~", "unknown": "?"}
_VALUE_LIMIT = 60


@click.command()
@click.argument("before", metavar="A", shell_complete=complete_name)
@click.argument("after", metavar="B", shell_complete=complete_name)
@json_option
def command(before: str, after: str, as_json: bool) -> None:
    """Show what is different in B: files, keys of config.json, metrics, metadata.

    A and B are names as for `registry pull`, or local folders (`./model`). Nothing but
    config.json is fetched. The exit status is 0 whether or not they differ.
    """
    from registry.diff import diff

    with json_errors(as_json):
        found = diff(before, after)
    if as_json:
        result_json(found)
        return
    say(f"{found.before} -> {found.after}")
    if found.same:
        say("No difference.")
    for line in _lines(found):
        result(line)


def _lines(found: Difference) -> list[str]:
    lines = []
    if found.files:
        lines.append(f"files ({found.same_files} the same)")
        lines += [_file_line(file) for file in found.files]
    for title, values in (
        ("config.json", found.config),
        ("metrics", found.metrics),
        ("metadata", found.metadata),
    ):
        if values:
            lines += [title, *(_value_line(value) for value in values)]
    return lines


def _file_line(file: FileChange) -> str:
    from registry.cli.pull import size_text

    sizes = [size_text(s) for s in (file.before_bytes, file.after_bytes) if s is not None]
    note = "  (hashed differently: pull both to compare)" if file.change == "unknown" else ""
    return f"  {_SIGNS[file.change]} {file.path}  {' -> '.join(dict.fromkeys(sizes))}{note}"


def _value_line(value: ValueChange) -> str:
    sign = _SIGNS[value.change]
    if value.change == "added":
        return f"  {sign} {value.key} = {_short(value.after)}"
    if value.change == "removed":
        return f"  {sign} {value.key} = {_short(value.before)}"
    return f"  {sign} {value.key}  {_short(value.before)} -> {_short(value.after)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _VALUE_LIMIT else text[: _VALUE_LIMIT - 1] + "…"
