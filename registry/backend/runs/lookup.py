"""Find and make projects and runs by the names that clients use."""

from __future__ import annotations

import sqlite3

from registry.backend.clock import now_text
from registry.backend.graphql.errors import OperationError

MAX_NAME_LENGTH = 128
DEFAULT_PROJECT = "uncategorized"


def project_row(
    connection: sqlite3.Connection, entity: str | None, name: str | None, default_entity: str
) -> sqlite3.Row | None:
    """Return the project, or None; an absent entity means `default_entity`."""
    found: sqlite3.Row | None = connection.execute(
        "SELECT * FROM projects WHERE entity = ? AND name = ?",
        (entity or default_entity, name or DEFAULT_PROJECT),
    ).fetchone()
    return found


def ensure_project(connection: sqlite3.Connection, entity: str, name: str | None) -> sqlite3.Row:
    """Return the project, made if there is none.

    Raises:
        OperationError: the name cannot be a project's.
    """
    name = checked_name(name or DEFAULT_PROJECT, "project")
    checked_name(entity, "entity")
    connection.execute(
        "INSERT INTO projects (entity, name, created_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        (entity, name, now_text()),
    )
    row: sqlite3.Row = connection.execute(
        "SELECT * FROM projects WHERE entity = ? AND name = ?", (entity, name)
    ).fetchone()
    return row


def run_row(
    connection: sqlite3.Connection, project_id: int, name: str | None
) -> sqlite3.Row | None:
    """Return the project's run with the id `name` that the client chose, or None."""
    found: sqlite3.Row | None = connection.execute(
        "SELECT * FROM runs WHERE project_id = ? AND name = ?", (project_id, name)
    ).fetchone()
    return found


def named_run(
    connection: sqlite3.Connection,
    entity: str | None,
    project: str | None,
    run: str | None,
    default_entity: str,
) -> sqlite3.Row | None:
    """Return the run by its three names, or None."""
    row = project_row(connection, entity, project, default_entity)
    return run_row(connection, row["id"], run) if row else None


def checked_name(name: str, what: str) -> str:
    """Return `name` if it can be a path segment of URLs.

    Raises:
        OperationError: empty, too long, or with characters that W&B forbids.
    """
    forbidden = set(name) & set("/\\#?%:\0\n\r\t")
    if not name or len(name) > MAX_NAME_LENGTH or forbidden or name in (".", ".."):
        raise OperationError(f"Invalid {what} name {name!r}.")
    return name
