"""Lines of a run's streams: written by offset, read by step, sampled evenly."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from registry.backend.runs.documents import (
    json_type,
    leaf_items,
    parse_line,
    strict_json,
    value_at,
)

HISTORY = "history"
EVENTS = "events"
CONSOLE = "console"
DEFAULT_SAMPLES = 500
MAX_STEP = 2**62
"""Beyond it a step is no number that the database can compare."""


def write_lines(
    connection: sqlite3.Connection, run_id: int, stream: str, offset: int, lines: Sequence[str]
) -> None:
    """Store lines at `offset`, idempotently: the same lines again change nothing.

    A run that is started anew under its old id overwrites what its former life left: its steps
    go back, or the first line of the stream differs. Within one life steps only grow.
    """
    if not lines:
        return
    if offset == 0 and stream != CONSOLE and _begins_anew(connection, run_id, stream, lines[0]):
        _drop_stream(connection, run_id, stream)
    known = line_count(connection, run_id, stream)
    documents = [parse_line(line) if stream == HISTORY else None for line in lines]
    rows = [
        (run_id, stream, offset + index, _step(document), line)
        for index, (line, document) in enumerate(zip(lines, documents, strict=True))
    ]
    connection.executemany(
        "INSERT INTO run_lines (run_id, stream, number, step, content) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET step = excluded.step, content = excluded.content",
        rows,
    )
    if stream != HISTORY:
        return
    if _drop_overtaken(connection, run_id, offset, rows[0][3]):
        _recount_keys(connection, run_id)
        return
    fresh = [d for i, d in enumerate(documents) if d is not None and offset + i >= known]
    _count_keys(connection, run_id, fresh)


def line_count(connection: sqlite3.Connection, run_id: int, stream: str) -> int:
    """Return how many lines the stream has, gaps included."""
    last = connection.execute(
        "SELECT max(number) FROM run_lines WHERE run_id = ? AND stream = ?", (run_id, stream)
    ).fetchone()[0]
    return 0 if last is None else int(last) + 1


def tail(connection: sqlite3.Connection, run_id: int, stream: str, count: int = 1) -> list[str]:
    """Return the last `count` lines, oldest first."""
    rows = connection.execute(
        "SELECT content FROM run_lines WHERE run_id = ? AND stream = ?"
        " ORDER BY number DESC LIMIT ?",
        (run_id, stream, count),
    ).fetchall()
    return [row["content"] for row in reversed(rows)]


def last_step(connection: sqlite3.Connection, run_id: int) -> int:
    """Return the highest step of the history, -1 when there is none."""
    step = connection.execute(
        "SELECT max(step) FROM run_lines WHERE run_id = ? AND stream = ?", (run_id, HISTORY)
    ).fetchone()[0]
    return -1 if step is None else int(step)


def lines_between(
    connection: sqlite3.Connection,
    run_id: int,
    stream: str,
    min_step: int | None = None,
    max_step: int | None = None,
) -> list[str]:
    """Return the lines with `min_step` <= step < `max_step`, in order; None is no bound."""
    query = "SELECT content FROM run_lines WHERE run_id = ? AND stream = ?"
    arguments: list[object] = [run_id, stream]
    if min_step is not None:
        query += " AND step >= ?"
        arguments.append(min_step)
    if max_step is not None:
        query += " AND step < ?"
        arguments.append(max_step)
    rows = connection.execute(f"{query} ORDER BY number", arguments)
    return [row["content"] for row in rows]


def sample_evenly(items: Sequence[Any], samples: int | None) -> list[Any]:
    """Return at most `samples` items, evenly spaced, the first and the last among them."""
    wanted = DEFAULT_SAMPLES if samples is None else max(0, samples)
    if len(items) <= wanted:
        return list(items)
    if wanted < 2:
        return list(items[:wanted])
    spacing = (len(items) - 1) / (wanted - 1)
    return [items[round(index * spacing)] for index in range(wanted)]


def sampled(
    connection: sqlite3.Connection, run_id: int, spec: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the history rows that have all of the spec's keys, with these keys alone.

    Args:
        connection: a transaction.
        run_id: row number of the run.
        spec: `{keys, samples, minStep, maxStep}`; without keys whole rows are returned.
    """
    keys = [str(key) for key in spec.get("keys") or ()]
    lines = lines_between(connection, run_id, HISTORY, *_step_bounds(spec))
    found = []
    for line in lines:
        document = parse_line(line)
        if document is None:
            continue
        row = {key: value_at(document, key) for key in keys} if keys else document
        if all(value is not None for value in row.values()):
            found.append(strict_json(row))
    return sample_evenly(found, _whole(spec.get("samples")))


def _step_bounds(spec: Mapping[str, Any]) -> tuple[int | None, int | None]:
    first, last = _whole(spec.get("minStep")), _whole(spec.get("maxStep"))
    if first is not None and last is not None and spec.get("samples") == last - first + 1:
        # SDKs from 0.31 name the last step of a page, older ones the step after it; newer ones
        # ask for as many samples as the page has steps, older ones for their page size.
        return first, last + 1
    return first, last


def rewind(connection: sqlite3.Connection, run_id: int, step: int) -> None:
    """Drop the history after `step`."""
    connection.execute(
        "DELETE FROM run_lines WHERE run_id = ? AND stream = ? AND step > ?",
        (run_id, HISTORY, step),
    )
    _recount_keys(connection, run_id)


def _drop_overtaken(
    connection: sqlite3.Connection, run_id: int, offset: int, step: int | None
) -> bool:
    if step is None:
        return False
    dropped = connection.execute(
        "DELETE FROM run_lines WHERE run_id = ? AND stream = ? AND number < ? AND step >= ?",
        (run_id, HISTORY, offset, step),
    )
    return dropped.rowcount > 0


def _recount_keys(connection: sqlite3.Connection, run_id: int) -> None:
    connection.execute("UPDATE runs SET history_keys = '{}' WHERE id = ?", (run_id,))
    left = [parse_line(line) for line in lines_between(connection, run_id, HISTORY)]
    _count_keys(connection, run_id, [document for document in left if document is not None])


def _begins_anew(connection: sqlite3.Connection, run_id: int, stream: str, first: str) -> bool:
    row = connection.execute(
        "SELECT content FROM run_lines WHERE run_id = ? AND stream = ? AND number = 0",
        (run_id, stream),
    ).fetchone()
    return row is not None and row["content"] != first


def _drop_stream(connection: sqlite3.Connection, run_id: int, stream: str) -> None:
    connection.execute("DELETE FROM run_lines WHERE run_id = ? AND stream = ?", (run_id, stream))
    if stream == HISTORY:
        connection.execute("UPDATE runs SET history_keys = '{}' WHERE id = ?", (run_id,))


def _count_keys(
    connection: sqlite3.Connection, run_id: int, documents: Sequence[Mapping[str, Any]]
) -> None:
    if not documents:
        return
    stored = connection.execute("SELECT history_keys FROM runs WHERE id = ?", (run_id,)).fetchone()
    keys: dict[str, dict[str, int]] = json.loads(stored["history_keys"])
    for document in documents:
        for key, value in leaf_items(document):
            counts = keys.setdefault(key, {})
            kind = json_type(value)
            counts[kind] = counts.get(kind, 0) + 1
    connection.execute("UPDATE runs SET history_keys = ? WHERE id = ?", (json.dumps(keys), run_id))


def _step(document: Mapping[str, Any] | None) -> int | None:
    return None if document is None else _whole(document.get("_step"))


def _whole(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = int(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < MAX_STEP else None
