"""GraphQL nodes of artifacts, and finding rows by the ids and names that clients send."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from registry.backend.artifacts.collections import CollectionKind, get_collection
from registry.backend.artifacts.versions import get_artifact
from registry.backend.context import Context
from registry.backend.graphql.errors import OperationError
from registry.backend.graphql.fields import Node
from registry.backend.identifiers import decode_id, encode_id
from registry.backend.runs.lookup import ensure_project, project_row

COLLECTION_TYPES = ("ArtifactSequence", "ArtifactPortfolio")
_COLLECTION_TYPE = {
    CollectionKind.SEQUENCE: "ArtifactSequence",
    CollectionKind.PORTFOLIO: "ArtifactPortfolio",
}


def artifact_node(row: sqlite3.Row | None) -> Node | None:
    """Return the node of a row of `artifact_details`."""
    return Node("Artifact", row) if row else None


def collection_node(row: sqlite3.Row) -> Node:
    """Return the node of a collection, typed by its kind."""
    return Node(_COLLECTION_TYPE[CollectionKind(row["kind"])], row)


def membership_node(row: sqlite3.Row | None) -> Node | None:
    """Return the node of a membership."""
    return Node("ArtifactCollectionMembership", row) if row else None


def alias_node(row: sqlite3.Row) -> Node:
    """Return the node of an alias."""
    return Node("ArtifactAlias", row)


def tag_nodes(rows: Iterable[sqlite3.Row], kind: str) -> list[dict[str, object]]:
    """Return tags; `kind` tells those of versions and of collections apart in their ids."""
    return [
        {
            "__typename": "Tag",
            "id": encode_id(kind, row["id"]),
            "name": row["name"],
            "tagCategoryName": None,
            "attributes": None,
        }
        for row in rows
    ]


def project_node(connection: sqlite3.Connection, project_id: int) -> Node:
    """Return the node of the project with that row id."""
    row = connection.execute("SELECT * FROM projects WHERE id = ?", (project_id,)).fetchone()
    return Node("Project", row)


def artifact_of(context: Context, public_id: str | None) -> sqlite3.Row:
    """Return the row of the version with a public id.

    Raises:
        NotFoundError: there is none.
    """
    return get_artifact(context.connection, decode_id("Artifact", public_id))


def collection_of(context: Context, public_id: str | None) -> sqlite3.Row:
    """Return the row of the collection with a public id.

    Raises:
        NotFoundError: there is none.
    """
    return get_collection(context.connection, decode_id("ArtifactCollection", public_id))


def project_of(context: Context, entity: str | None, project: str | None) -> sqlite3.Row:
    """Return the row of an existing project.

    Raises:
        OperationError: there is none.
    """
    row = project_row(context.connection, entity, project, context.backend.settings.entity)
    if row is None:
        raise OperationError(f"Project {entity}/{project} was not found.")
    return row


def made_project(context: Context, entity: str | None, project: str | None) -> sqlite3.Row:
    """Return the row of a project, made if there is none.

    Raises:
        OperationError: the name cannot be a project's.
    """
    return ensure_project(context.connection, entity or context.backend.settings.entity, project)


def alias_names(
    inputs: Sequence[dict[str, str] | str] | None, collection_name: str | None = None
) -> tuple[str, ...]:
    """Return aliases of inputs `{alias, artifactCollectionName}`, of one collection if given.

    SDKs before 0.27 send bare names in one place.
    """
    names = []
    for item in inputs or ():
        if isinstance(item, str):
            names.append(item)
        elif collection_name in (None, item.get("artifactCollectionName", collection_name)):
            names.append(item["alias"])
    return tuple(names)


def tag_names(inputs: Sequence[dict[str, str] | str] | None) -> tuple[str, ...]:
    """Return the names in inputs `{tagName}`, or bare names."""
    return tuple(item if isinstance(item, str) else item["tagName"] for item in inputs or ())
