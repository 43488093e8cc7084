"""Making, changing and deleting runs."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Mapping, Sequence

from registry.backend.clock import now_text
from registry.backend.context import Context
from registry.backend.graphql.errors import OperationError
from registry.backend.graphql.fields import FieldSet, Node
from registry.backend.identifiers import decode_id
from registry.backend.runs.documents import parse_object
from registry.backend.runs.history import rewind
from registry.backend.runs.lookup import checked_name, ensure_project, named_run, run_row
from registry.backend.runs.names import display_name as made_up_name
from registry.backend.runs.states import checked_transition, state_of

fields = FieldSet()

_STARTABLE = frozenset({"running", "pending"})


@fields.mutation("upsertBucket")
def upsert_bucket(
    context: Context,
    *,
    id: str | None = None,
    name: str | None = None,
    entity_name: str | None = None,
    model_name: str | None = None,
    display_name: str | None = None,
    description: str | None = None,
    notes: str | None = None,
    group_name: str | None = None,
    job_type: str | None = None,
    job_program: str | None = None,
    job_repo: str | None = None,
    commit: str | None = None,
    host: str | None = None,
    sweep: str | None = None,
    state: str | None = None,
    tags: Sequence[str] | None = None,
    config: str | None = None,
    summary_metrics: str | None = None,
    debug: bool | None = None,
) -> dict[str, object]:
    """Make a run or change one; what is absent or null stays as it is.

    Raises:
        OperationError: an id without a run, an impossible name, or documents that are no JSON.
    """
    del debug
    changes: dict[str, object] = {
        "display_name": display_name or None,
        "description": description,
        "notes": notes,
        "run_group": group_name,
        "job_type": job_type,
        "program": job_program,
        "repository": job_repo,
        "commit_sha": commit,
        "host": host,
        "sweep": sweep,
        "tags": None if tags is None else json.dumps(list(tags)),
        "config": _document(config, "configuration"),
        "summary": _document(summary_metrics, "summary"),
    }
    if id:
        row, inserted = run_by_id(context, id), False
    else:
        entity = entity_name or context.backend.settings.entity
        project = ensure_project(context.connection, entity, model_name)
        row, inserted = _ensure_run(context, project, name, state)
        # The SDK names a run by its id; a change that comes by storage id starts nothing.
        if not inserted:
            changes |= {"heartbeat_at": now_text(), **_resumed(row, state)}
    changed = _change(context.connection, row["id"], changes)
    return {
        "bucket": Node("Run", changed),
        "inserted": inserted,
        "serverSettings": Node("ServerSettings", {}),
    }


def run_by_id(context: Context, public_id: str | None) -> sqlite3.Row:
    """Return the run with a public id.

    Raises:
        OperationError: there is none.
    """
    row: sqlite3.Row | None = context.connection.execute(
        "SELECT * FROM runs WHERE id = ?", (decode_id("Run", public_id),)
    ).fetchone()
    if row is None:
        raise OperationError("No such run.")
    return row


def _ensure_run(
    context: Context, project: sqlite3.Row, name: str | None, state: str | None
) -> tuple[sqlite3.Row, bool]:
    connection = context.connection
    name = checked_name(name or secrets.token_hex(4), "run")
    found = run_row(connection, project["id"], name)
    if found is not None:
        return found, False
    number = connection.execute(
        "SELECT count(*) + 1 FROM runs WHERE project_id = ?", (project["id"],)
    ).fetchone()[0]
    now = now_text()
    connection.execute(
        "INSERT INTO runs (project_id, name, display_name, state, created_at, updated_at,"
        " heartbeat_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            project["id"],
            name,
            made_up_name(number),
            state if state in _STARTABLE else "running",
            now,
            now,
            now,
        ),
    )
    made = run_row(connection, project["id"], name)
    if made is None:
        raise OperationError("The run could not be made.", status=503)
    return made, True


def _resumed(run: sqlite3.Row, state: str | None) -> dict[str, object]:
    wanted = state if state in _STARTABLE else "running"
    if run["state"] == wanted:
        return {}
    return {"state": wanted, "stop_requested": 0}


def _change(
    connection: sqlite3.Connection, run_id: int, changes: Mapping[str, object]
) -> sqlite3.Row:
    given = {column: value for column, value in changes.items() if value is not None}
    given["updated_at"] = now_text()
    # Column names come from this module alone, never from a client.
    assignments = ", ".join(f"{column} = ?" for column in given)
    connection.execute(
        f"UPDATE runs SET {assignments} WHERE id = ?",  # noqa: S608 - see above
        (*given.values(), run_id),
    )
    row: sqlite3.Row = connection.execute("SELECT * FROM runs WHERE id = ?", (run_id,)).fetchone()
    return row


def _document(text: str | None, what: str) -> str | None:
    if text is None:
        return None
    parse_object(text, what)
    return text or "{}"


@fields.mutation("deleteRun")
def delete_run(
    context: Context, *, id: str, delete_artifacts: bool | None = None
) -> dict[str, object]:
    """Delete a run with its history, files and alerts; artifacts only when asked.

    Raises:
        OperationError: no such run.
    """
    row = run_by_id(context, id)
    files = context.connection.execute(
        "SELECT sha256 FROM run_files WHERE run_id = ?", (row["id"],)
    )
    for file in files:
        context.drop_blob(file["sha256"])
    for part in context.backend.parts:
        for hook in part.run_delete_hooks:
            hook(context, row, bool(delete_artifacts))
    context.connection.execute("DELETE FROM runs WHERE id = ?", (row["id"],))
    return {"success": True, "clientMutationId": None}


@fields.mutation("updateRunState")
def update_run_state(context: Context, *, id: str, state: str | None = None) -> dict[str, object]:
    """Set a run to `pending` or `failed`.

    Raises:
        OperationError: no such run, or not from its present state.
    """
    row = run_by_id(context, id)
    current = state_of(row, context.backend.settings.heartbeat_timeout_s)
    _change(context.connection, row["id"], {"state": checked_transition(current, state)})
    return {"success": True}


@fields.mutation("stopRun")
def stop_run(context: Context, *, id: str) -> dict[str, object]:
    """Ask a run to stop; its process learns it with its next message.

    Raises:
        OperationError: no such run.
    """
    _change(context.connection, run_by_id(context, id)["id"], {"stop_requested": 1})
    return {"success": True, "clientMutationId": None}


@fields.mutation("rewindRun")
def rewind_run(
    context: Context,
    *,
    run_name: str,
    entity_name: str | None = None,
    project_name: str | None = None,
    metric_name: str = "_step",
    metric_value: float = 0,
) -> dict[str, object]:
    """Drop a run's history after a step.

    Raises:
        OperationError: no such run, or another metric than `_step`.
    """
    row = _named(context, entity_name, project_name, run_name)
    if metric_name != "_step":
        raise OperationError("Runs can be rewound by _step only.")
    rewind(context.connection, row["id"], int(metric_value))
    changed = _change(context.connection, row["id"], {"state": "running", "stop_requested": 0})
    return {"rewoundRun": Node("Run", changed)}


@fields.mutation("notifyScriptableRunAlert")
def alert(
    context: Context,
    *,
    run_name: str,
    title: str,
    text: str = "",
    severity: str | None = None,
    entity_name: str | None = None,
    project_name: str | None = None,
    wait_duration: int | None = None,
) -> dict[str, object]:
    """Keep an alert; nobody is notified.

    Raises:
        OperationError: no such run.
    """
    del wait_duration
    row = _named(context, entity_name, project_name, run_name)
    context.connection.execute(
        "INSERT INTO alerts (run_id, title, text, severity, created_at) VALUES (?, ?, ?, ?, ?)",
        (row["id"], title, text, severity or "INFO", now_text()),
    )
    return {"success": True}


def _named(
    context: Context, entity: str | None, project: str | None, run: str | None
) -> sqlite3.Row:
    default = context.backend.settings.entity
    row = named_run(context.connection, entity, project, run, default)
    if row is None:
        raise OperationError(f"No run {run!r} in project {project!r}.")
    return row
