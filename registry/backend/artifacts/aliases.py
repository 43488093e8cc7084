"""Memberships, which give a version its number in a collection, and the aliases on them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from registry.backend.artifacts.names import LATEST, check_alias, split_name, version_number
from registry.backend.clock import now_text
from registry.errors import UsageError


def add_membership(connection: sqlite3.Connection, collection_id: int, artifact_id: int) -> int:
    """Put a version into a collection under its next number; return the membership's id.

    A version that is there already keeps its number. `latest` moves to a new member.
    """
    existing = find_membership(connection, collection_id, artifact_id)
    if existing is not None:
        return int(existing["id"])
    number = connection.execute(
        "UPDATE artifact_collections SET next_version = next_version + 1, updated_at = ?"
        " WHERE id = ? RETURNING next_version - 1",
        (now_text(), collection_id),
    ).fetchone()[0]
    membership_id = connection.execute(
        "INSERT INTO artifact_memberships (collection_id, artifact_id, version_index, created_at)"
        " VALUES (?, ?, ?, ?) RETURNING id",
        (collection_id, artifact_id, number, now_text()),
    ).fetchone()[0]
    set_aliases(connection, collection_id, int(membership_id), [LATEST])
    return int(membership_id)


def find_membership(
    connection: sqlite3.Connection, collection_id: int, artifact_id: int
) -> sqlite3.Row | None:
    """Return the row of a version's membership in a collection, or None."""
    row: sqlite3.Row | None = connection.execute(
        "SELECT * FROM artifact_memberships WHERE collection_id = ? AND artifact_id = ?",
        (collection_id, artifact_id),
    ).fetchone()
    return row


def resolve_alias(
    connection: sqlite3.Connection, collection_id: int, alias: str
) -> sqlite3.Row | None:
    """Return the membership that `v3`, an alias or a version's digest names, or None."""
    number = version_number(alias)
    row: sqlite3.Row | None
    if number is not None:
        row = connection.execute(
            "SELECT * FROM artifact_memberships WHERE collection_id = ? AND version_index = ?",
            (collection_id, number),
        ).fetchone()
        return row
    row = connection.execute(
        "SELECT artifact_memberships.* FROM artifact_aliases JOIN artifact_memberships"
        " ON artifact_memberships.id = artifact_aliases.membership_id"
        " WHERE artifact_aliases.collection_id = ? AND alias = ?",
        (collection_id, alias),
    ).fetchone()
    return row or _by_digest(connection, collection_id, alias)


def _by_digest(
    connection: sqlite3.Connection, collection_id: int, digest: str
) -> sqlite3.Row | None:
    row: sqlite3.Row | None = connection.execute(
        "SELECT artifact_memberships.* FROM artifact_memberships JOIN artifacts"
        " ON artifacts.id = artifact_memberships.artifact_id"
        " WHERE collection_id = ? AND digest = ?"
        " ORDER BY artifact_memberships.version_index DESC LIMIT 1",
        (collection_id, digest),
    ).fetchone()
    return row


def resolve_name(connection: sqlite3.Connection, project_id: int, name: str) -> sqlite3.Row | None:
    """Return the membership that `collection:alias` names in a project, or None."""
    collection_name, alias = split_name(name)
    collection = connection.execute(
        "SELECT id FROM artifact_collections WHERE project_id = ? AND name = ?",
        (project_id, collection_name),
    ).fetchone()
    return resolve_alias(connection, collection["id"], alias) if collection else None


def set_aliases(
    connection: sqlite3.Connection, collection_id: int, membership_id: int, aliases: Iterable[str]
) -> None:
    """Move aliases to a membership; each was on at most one other of the collection.

    Raises:
        UsageError: an alias is not allowed, or is another version's number.
    """
    for alias in aliases:
        if version_number(check_alias(alias)) is not None:
            _check_own_number(connection, membership_id, alias)
            continue
        connection.execute(
            "INSERT INTO artifact_aliases (collection_id, membership_id, alias) VALUES (?, ?, ?)"
            " ON CONFLICT (collection_id, alias)"
            " DO UPDATE SET membership_id = excluded.membership_id",
            (collection_id, membership_id, alias),
        )


def _check_own_number(connection: sqlite3.Connection, membership_id: int, alias: str) -> None:
    own = connection.execute(
        "SELECT version_index FROM artifact_memberships WHERE id = ?", (membership_id,)
    ).fetchone()
    if own["version_index"] != version_number(alias):
        raise UsageError(f"{alias!r} is a version's number and cannot be an alias.")


def remove_aliases(
    connection: sqlite3.Connection, membership_id: int, aliases: Iterable[str]
) -> None:
    """Take aliases from a membership; those that are elsewhere stay there."""
    connection.executemany(
        "DELETE FROM artifact_aliases WHERE membership_id = ? AND alias = ?",
        [(membership_id, alias) for alias in aliases],
    )


def replace_aliases(
    connection: sqlite3.Connection, collection_id: int, membership_id: int, aliases: Iterable[str]
) -> None:
    """Give a membership exactly these aliases."""
    connection.execute("DELETE FROM artifact_aliases WHERE membership_id = ?", (membership_id,))
    set_aliases(connection, collection_id, membership_id, aliases)


def membership_aliases(connection: sqlite3.Connection, membership_id: int) -> list[sqlite3.Row]:
    """Return rows (`id`, `alias`, `collection_id`) of a membership, oldest first."""
    return connection.execute(
        "SELECT id, alias, collection_id FROM artifact_aliases WHERE membership_id = ? ORDER BY id",
        (membership_id,),
    ).fetchall()


def collection_aliases(connection: sqlite3.Connection, collection_id: int) -> list[sqlite3.Row]:
    """Return rows (`id`, `alias`, `collection_id`) of a collection, oldest first."""
    return connection.execute(
        "SELECT id, alias, collection_id FROM artifact_aliases WHERE collection_id = ? ORDER BY id",
        (collection_id,),
    ).fetchall()


def artifact_aliases(connection: sqlite3.Connection, artifact_id: int) -> list[sqlite3.Row]:
    """Return rows (`id`, `alias`, `collection_id`) of a version in all collections."""
    return connection.execute(
        "SELECT artifact_aliases.id, alias, artifact_aliases.collection_id FROM artifact_aliases"
        " JOIN artifact_memberships ON artifact_memberships.id = artifact_aliases.membership_id"
        " WHERE artifact_id = ? ORDER BY artifact_aliases.id",
        (artifact_id,),
    ).fetchall()


def link_numbers(connection: sqlite3.Connection, artifact_id: int) -> list[sqlite3.Row]:
    """Return rows (`id`, `alias`, `collection_id`) with a version's number (`v3`) in portfolios.

    SDKs read a link's number from among the aliases: without it they take the source's.
    """
    return connection.execute(
        "SELECT -artifact_memberships.id AS id, 'v' || version_index AS alias, collection_id"
        " FROM artifact_memberships JOIN artifact_collections"
        " ON artifact_collections.id = collection_id"
        " WHERE artifact_id = ? AND kind = 'PORTFOLIO' ORDER BY artifact_memberships.id",
        (artifact_id,),
    ).fetchall()


def list_memberships(connection: sqlite3.Connection, artifact_id: int) -> list[sqlite3.Row]:
    """Return the memberships of a version, oldest first: its own sequence, then links."""
    return connection.execute(
        "SELECT * FROM artifact_memberships WHERE artifact_id = ? ORDER BY id", (artifact_id,)
    ).fetchall()


def remove_membership(connection: sqlite3.Connection, membership: sqlite3.Row) -> None:
    """Take a version out of a collection; `latest` falls back to the newest left."""
    had_latest = any(
        row["alias"] == LATEST for row in membership_aliases(connection, membership["id"])
    )
    connection.execute("DELETE FROM artifact_memberships WHERE id = ?", (membership["id"],))
    if had_latest:
        fall_back(connection, membership["collection_id"])


def fall_back(connection: sqlite3.Connection, collection_id: int) -> None:
    """Give `latest` to the newest member, if there is one."""
    newest = connection.execute(
        "SELECT id FROM artifact_memberships WHERE collection_id = ?"
        " ORDER BY version_index DESC LIMIT 1",
        (collection_id,),
    ).fetchone()
    if newest:
        set_aliases(connection, collection_id, newest["id"], [LATEST])
