"""`file_stream`: what a running process sends about itself, every few seconds.

Lines carry their offset, so sending them again changes nothing; the answer follows the commit.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping
from typing import Any

from litestar import post
from litestar.exceptions import ClientException, NotFoundException

from registry.backend.clock import now_text
from registry.backend.json_text import parse_json
from registry.backend.responses import AnyRequest, backend_of, path_parameter, require_key
from registry.backend.runs.documents import parse_line
from registry.backend.runs.history import CONSOLE, EVENTS, HISTORY, write_lines
from registry.backend.runs.lookup import named_run
from registry.backend.runs.states import final_state
from registry.backend.service import Backend
from registry.backend.streams import read_body

_STREAMS = {
    "wandb-history.jsonl": HISTORY,
    "wandb-events.jsonl": EVENTS,
    "output.log": CONSOLE,
}
SUMMARY = "wandb-summary.json"


@post(
    "/files/{entity:str}/{project:str}/{run:str}/file_stream",
    guards=[require_key],
    status_code=200,
)
async def file_stream(request: AnyRequest) -> dict[str, object]:
    """Store lines, summary and end of a run; tell the process whether it should stop."""
    backend = backend_of(request)
    body = await read_body(request, backend.settings.max_stream_bytes)
    names = (
        path_parameter(request, "entity"),
        path_parameter(request, "project"),
        path_parameter(request, "run"),
    )
    return await asyncio.to_thread(_apply, backend, names, body)


def _apply(backend: Backend, names: tuple[str, str, str], body: bytes) -> dict[str, object]:
    message = _parse(body)
    with backend.database.write() as connection:
        row = named_run(connection, *names, backend.settings.entity)
        if row is None:
            raise NotFoundException(f"No run {names[2]!r}.")
        apply_message(connection, row, message)
    return {"exitcode": None, "limits": {}, "stopped": bool(row["stop_requested"])}


def _parse(body: bytes) -> dict[str, Any]:
    try:
        message = parse_json(body)
    except (ValueError, RecursionError) as error:
        raise ClientException("The body is not JSON.") from error
    if not isinstance(message, dict):
        raise ClientException("The body is not a JSON object.")
    return message


def apply_message(
    connection: sqlite3.Connection, run: sqlite3.Row, message: Mapping[str, Any]
) -> None:
    """Apply one message to the run, idempotently.

    Raises:
        ClientException: the message is malformed; the transaction must be rolled back.
    """
    files = message.get("files") or {}
    if not isinstance(files, Mapping):
        raise ClientException("`files` is not an object.")
    for name, chunk in files.items():
        offset, lines = _chunk(chunk)
        if name in _STREAMS:
            write_lines(connection, run["id"], _STREAMS[name], offset, lines)
        elif name == SUMMARY and lines and parse_line(lines[-1]) is not None:
            connection.execute("UPDATE runs SET summary = ? WHERE id = ?", (lines[-1], run["id"]))
    now = now_text()
    connection.execute(
        "UPDATE runs SET heartbeat_at = ?, updated_at = ? WHERE id = ?", (now, now, run["id"])
    )
    if message.get("preempting"):
        connection.execute("UPDATE runs SET state = 'preempting' WHERE id = ?", (run["id"],))
    if message.get("complete"):
        _finish(connection, run, message)


def _chunk(chunk: object) -> tuple[int, list[str]]:
    if not isinstance(chunk, Mapping):
        raise ClientException("A file's chunk is not an object.")
    offset, content = chunk.get("offset", 0), chunk.get("content", [])
    if isinstance(content, str):
        content = [content]
    whole = isinstance(offset, int) and not isinstance(offset, bool) and 0 <= offset < 2**53
    if not whole or not isinstance(content, list):
        raise ClientException("A file's chunk has no proper offset or content.")
    if not all(isinstance(line, str) for line in content):
        raise ClientException("A file's chunk holds something else than text.")
    return offset, content


def _finish(connection: sqlite3.Connection, run: sqlite3.Row, message: Mapping[str, Any]) -> None:
    exit_code = message.get("exitcode")
    exit_code = exit_code if isinstance(exit_code, int) else 0
    state = final_state(
        exit_code,
        stop_requested=bool(run["stop_requested"]),
        preempting=run["state"] == "preempting" or bool(message.get("preempting")),
    )
    connection.execute(
        "UPDATE runs SET state = ?, exit_code = ? WHERE id = ?", (state, exit_code, run["id"])
    )
