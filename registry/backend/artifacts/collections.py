"""Types and collections: sequences, which own versions, and portfolios, which link to them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from registry.backend.artifacts.manifests import DigestAlgorithm
from registry.backend.artifacts.names import check_name, check_tags
from registry.backend.clock import now_text
from registry.errors import NotFoundError, UsageError


class CollectionKind(StrEnum):
    """What a collection holds."""

    SEQUENCE = "SEQUENCE"
    PORTFOLIO = "PORTFOLIO"


@dataclass(frozen=True, slots=True)
class CollectionChange:
    """New name and description; None leaves what is there."""

    name: str | None = None
    description: str | None = None


def ensure_type(
    connection: sqlite3.Connection, project_id: int, name: str, description: str | None = None
) -> int:
    """Return the id of the artifact type, made if there is none.

    Raises:
        UsageError: the name is not allowed.
    """
    check_name(name, "artifact type")
    connection.execute(
        "INSERT INTO artifact_types (project_id, name, description, created_at)"
        " VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (project_id, name, description, now_text()),
    )
    row = find_type(connection, project_id, name)
    if row is None:
        raise NotFoundError(f"Artifact type {name!r} vanished.")
    return int(row["id"])


def find_type(connection: sqlite3.Connection, project_id: int, name: str) -> sqlite3.Row | None:
    """Return the row of an artifact type, or None."""
    row: sqlite3.Row | None = connection.execute(
        "SELECT * FROM artifact_types WHERE project_id = ? AND name = ?", (project_id, name)
    ).fetchone()
    return row


def list_types(connection: sqlite3.Connection, project_id: int) -> list[sqlite3.Row]:
    """Return the project's artifact types by name."""
    return connection.execute(
        "SELECT * FROM artifact_types WHERE project_id = ? ORDER BY name", (project_id,)
    ).fetchall()


def ensure_collection(
    connection: sqlite3.Connection,
    project_id: int,
    name: str,
    *,
    kind: CollectionKind,
    type_name: str,
    algorithm: DigestAlgorithm = DigestAlgorithm.MD5,
) -> sqlite3.Row:
    """Return the collection, made if there is none.

    Raises:
        UsageError: the name is not allowed, or taken by another type or kind of collection.
    """
    existing = find_collection(connection, project_id, name)
    if existing is None:
        check_name(name, "collection")
        now = now_text()
        type_id = ensure_type(connection, project_id, type_name)
        connection.execute(
            "INSERT INTO artifact_collections"
            " (project_id, type_id, kind, name, digest_algorithm, created_at, updated_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (project_id, type_id, kind, name, algorithm, now, now),
        )
        existing = require_collection(connection, project_id, name)
    if existing["kind"] != kind:
        raise UsageError(f"{name!r} is a {existing['kind'].lower()}, not a {kind.lower()}.")
    if existing["type_name"] != type_name:
        raise UsageError(
            f"{name!r} holds artifacts of type {existing['type_name']!r}, not {type_name!r}."
        )
    return existing


_SELECT = (
    "SELECT artifact_collections.*, artifact_types.name AS type_name FROM artifact_collections"
    " JOIN artifact_types ON artifact_types.id = artifact_collections.type_id"
)


def find_collection(
    connection: sqlite3.Connection, project_id: int, name: str
) -> sqlite3.Row | None:
    """Return the row of a collection, with `type_name`, or None."""
    row: sqlite3.Row | None = connection.execute(
        f"{_SELECT} WHERE artifact_collections.project_id = ? AND artifact_collections.name = ?",
        (project_id, name),
    ).fetchone()
    return row


def require_collection(connection: sqlite3.Connection, project_id: int, name: str) -> sqlite3.Row:
    """Return the row of a collection, with `type_name`.

    Raises:
        NotFoundError: there is none.
    """
    row = find_collection(connection, project_id, name)
    if row is None:
        raise NotFoundError(f"There is no artifact collection {name!r}.")
    return row


def get_collection(connection: sqlite3.Connection, collection_id: int | None) -> sqlite3.Row:
    """Return the row of a collection, with `type_name`.

    Raises:
        NotFoundError: there is none.
    """
    row: sqlite3.Row | None = connection.execute(
        f"{_SELECT} WHERE artifact_collections.id = ?", (collection_id,)
    ).fetchone()
    if row is None:
        raise NotFoundError("There is no such artifact collection.")
    return row


def list_collections(
    connection: sqlite3.Connection, project_id: int, type_name: str | None = None
) -> list[sqlite3.Row]:
    """Return the project's collections, of one type if given, newest first."""
    return connection.execute(
        f"{_SELECT} WHERE artifact_collections.project_id = ?"
        " AND (? IS NULL OR artifact_types.name = ?) ORDER BY artifact_collections.id DESC",
        (project_id, type_name, type_name),
    ).fetchall()


def change_collection(
    connection: sqlite3.Connection, collection_id: int, change: CollectionChange
) -> None:
    """Rename or describe a collection.

    Raises:
        UsageError: the new name is not allowed or taken.
    """
    current = get_collection(connection, collection_id)
    name = current["name"] if change.name is None else check_name(change.name, "collection")
    other = find_collection(connection, current["project_id"], name)
    if other is not None and other["id"] != collection_id:
        raise UsageError(f"The project has another collection {name!r}.")
    text = current["description"] if change.description is None else change.description
    connection.execute(
        "UPDATE artifact_collections SET name = ?, description = ?, updated_at = ? WHERE id = ?",
        (name, text, now_text(), collection_id),
    )


def move_sequence(connection: sqlite3.Connection, collection_id: int, type_name: str) -> None:
    """Give a sequence, and so all its versions, another type.

    Raises:
        UsageError: the collection is no sequence, or the type's name is not allowed.
    """
    current = get_collection(connection, collection_id)
    if current["kind"] != CollectionKind.SEQUENCE:
        raise UsageError("Only a sequence can change its type.")
    type_id = ensure_type(connection, current["project_id"], type_name)
    connection.execute(
        "UPDATE artifact_collections SET type_id = ?, updated_at = ? WHERE id = ?",
        (type_id, now_text(), collection_id),
    )


def add_collection_tags(
    connection: sqlite3.Connection, collection_id: int, tags: Iterable[str]
) -> None:
    """Add tags to a collection; those that it has stay.

    Raises:
        UsageError: a tag is not allowed.
    """
    connection.executemany(
        "INSERT INTO artifact_collection_tags (collection_id, name) VALUES (?, ?)"
        " ON CONFLICT DO NOTHING",
        [(collection_id, tag) for tag in check_tags(tags)],
    )


def delete_collection_tags(
    connection: sqlite3.Connection, collection_id: int, tags: Iterable[str]
) -> None:
    """Take tags from a collection; those that it has not are no error."""
    connection.executemany(
        "DELETE FROM artifact_collection_tags WHERE collection_id = ? AND name = ?",
        [(collection_id, tag) for tag in tags],
    )


def collection_tags(connection: sqlite3.Connection, collection_id: int) -> list[sqlite3.Row]:
    """Return rows (`id`, `name`) of a collection's tags by name."""
    return connection.execute(
        "SELECT id, name FROM artifact_collection_tags WHERE collection_id = ? ORDER BY name",
        (collection_id,),
    ).fetchall()
