"""Console output of runs as numbered lines."""

from __future__ import annotations

import re
import sqlite3
from typing import Any

from registry.backend.context import Context
from registry.backend.graphql.fields import FieldSet
from registry.backend.paging import Page
from registry.backend.runs.documents import parse_line
from registry.backend.runs.history import CONSOLE, line_count

fields = FieldSet()

MAX_LINES = 10_000

# "ERROR 2026-01-31T12:00:00.000000 text": level and time are put there by the SDK.
_PREFIX = re.compile(r"(?:(ERROR) )?(\d{4}-\d\d-\d\dT[\d:.]+Z?) ?(.*)", re.DOTALL)


def parse_console_line(content: str) -> dict[str, Any]:
    """Return `{timestamp, level, label, line}` of one stored line."""
    if content.startswith("{"):
        structured = parse_line(content)
        if structured is not None and "content" in structured:
            return {
                "timestamp": structured.get("ts") or "",
                "level": structured.get("level") or "",
                "label": structured.get("label") or "",
                "line": structured["content"],
            }
    match = _PREFIX.fullmatch(content)
    level, time, text = match.groups() if match else (None, None, content)
    return {
        "timestamp": time or "",
        "level": "error" if level else "",
        "label": "",
        "line": text.rstrip("\n"),
    }


@fields.on("Run", "logLines")
def log_lines(
    context: Context,
    run: sqlite3.Row,
    *,
    first: int | None = None,
    after: str | None = None,
    last: int | None = None,
    use_improved_pagination: bool | None = None,
) -> dict[str, object]:
    """Return a page of console lines, or the last ones, oldest first."""
    del use_improved_pagination
    total = line_count(context.connection, run["id"], CONSOLE)
    page = Page.of(first, after, default=MAX_LINES)
    if last is not None:
        page = Page(max(0, total - min(last, MAX_LINES)), min(last, MAX_LINES))
    rows = context.connection.execute(
        "SELECT number, content FROM run_lines WHERE run_id = ? AND stream = ?"
        " AND number >= ? AND number < ? ORDER BY number",
        (run["id"], CONSOLE, page.offset, page.offset + page.limit),
    ).fetchall()
    by_number = {row["number"]: row["content"] for row in rows}
    window = [
        {"number": number, **parse_console_line(by_number.get(number, ""))}
        for number in range(page.offset, min(page.offset + page.limit, total))
    ]
    return page.connection(window, total=total)
