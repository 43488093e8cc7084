"""Projects: listing, making, deleting, and the sweeps that they do not have."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from registry.backend.clock import public_text
from registry.backend.context import Context
from registry.backend.graphql.errors import OperationError
from registry.backend.graphql.fields import FieldSet, Node
from registry.backend.identifiers import decode_id, encode_id
from registry.backend.paging import Page
from registry.backend.runs.account import entity_node, user_node
from registry.backend.runs.lookup import ensure_project, project_row

fields = FieldSet()


@fields.query("project", "model")
def project(
    context: Context, *, name: str | None = None, entity_name: str | None = None
) -> Node | None:
    """Return a project, or null."""
    row = project_row(context.connection, entity_name, name, context.backend.settings.entity)
    return Node("Project", row) if row else None


@fields.query("models", "projects")
def projects(
    context: Context,
    *,
    entity_name: str | None = None,
    first: int | None = None,
    after: str | None = None,
) -> dict[str, object]:
    """Return the entity's projects, newest first."""
    rows = context.connection.execute(
        "SELECT * FROM projects WHERE entity = ? ORDER BY id DESC",
        (entity_name or context.backend.settings.entity,),
    ).fetchall()
    page = Page.of(first, after)
    typename = {"__typename": "ProjectConnection"}
    return page.cut([Node("Project", row) for row in rows], **typename)


@fields.mutation("upsertModel")
def upsert_model(
    context: Context,
    *,
    name: str | None = None,
    entity_name: str | None = None,
    id: str | None = None,
    description: str | None = None,
    access: str | None = None,
    allow_all_artifact_types_in_registry: bool | None = None,
    artifact_types: list[dict[str, object]] | None = None,
) -> dict[str, object]:
    """Make a project or describe an existing one.

    Raises:
        OperationError: an id without a project, or an impossible name.
    """
    connection = context.connection
    if id:
        row = project_by_id(connection, id)
        if row is None:
            raise OperationError("No such project.")
        inserted = False
    else:
        entity = entity_name or context.backend.settings.entity
        inserted = project_row(connection, entity, name, entity) is None
        row = ensure_project(connection, entity, name)
    if description is not None:
        connection.execute(
            "UPDATE projects SET description = ? WHERE id = ?", (description, row["id"])
        )
        row = connection.execute("SELECT * FROM projects WHERE id = ?", (row["id"],)).fetchone()
    others: dict[str, object] = {
        "access": access,
        "allow_all_artifact_types_in_registry": allow_all_artifact_types_in_registry,
        "artifact_types": artifact_types,
    }
    for part in context.backend.parts:
        for hook in part.project_upsert_hooks:
            hook(context, row, others)
    node = Node("Project", row)
    return {"project": node, "model": node, "inserted": inserted}


@fields.mutation("deleteModel")
def delete_model(context: Context, *, id: str) -> dict[str, object]:
    """Delete a project with all that belongs to it.

    Raises:
        OperationError: no such project.
    """
    connection = context.connection
    row = project_by_id(connection, id)
    if row is None:
        raise OperationError("No such project.")
    files = connection.execute(
        "SELECT sha256 FROM run_files JOIN runs ON runs.id = run_id WHERE project_id = ?",
        (row["id"],),
    )
    for file in files:
        context.drop_blob(file["sha256"])
    for part in context.backend.parts:
        for hook in part.project_delete_hooks:
            hook(context, row)
    connection.execute("DELETE FROM projects WHERE id = ?", (row["id"],))
    return {"success": True, "clientMutationId": None}


def project_by_id(connection: sqlite3.Connection, public_id: str) -> sqlite3.Row | None:
    """Return the project with a public id, or None."""
    found: sqlite3.Row | None = connection.execute(
        "SELECT * FROM projects WHERE id = ?", (decode_id("Project", public_id),)
    ).fetchone()
    return found


@fields.on("Project", "id")
def project_id(_context: Context, row: sqlite3.Row) -> str:
    """Return the public id."""
    return encode_id("Project", row["id"])


@fields.on("Project", "internalId")
def internal_id(_context: Context, row: sqlite3.Row) -> str:
    """Return the row number as an id of its own kind, which registry searches decode."""
    return encode_id("ProjectInternalId", row["id"])


@fields.on("Entity", "projects")
@fields.on("User", "projects")
def entity_projects(
    context: Context,
    source: Mapping[str, object],
    *,
    first: int | None = None,
    after: str | None = None,
) -> dict[str, object]:
    """Return an entity's projects, newest first."""
    return projects(context, entity_name=str(source["name"]), first=first, after=after)


@fields.on("Project", "createdAt")
def created_at(_context: Context, row: sqlite3.Row) -> str | None:
    """Return when the project was made."""
    return public_text(row["created_at"])


@fields.on("Project", "entity")
def entity(_context: Context, row: sqlite3.Row) -> Node:
    """Return the owner."""
    return entity_node(row["entity"])


@fields.on("Project", "user")
def user(context: Context, _row: sqlite3.Row) -> Node:
    """Return the single user."""
    return user_node(context)


fields.columns("Project", {"name": "name", "entityName": "entity", "description": "description"})
fields.constants(
    "Project",
    {
        "readOnly": False,
        "isBenchmark": False,
        "views": None,
        "repo": None,
        "dockerImage": None,
    },
)
