"""The single user, entities, and what the server says about itself."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from registry.backend.context import Context
from registry.backend.graphql.fields import FieldSet, Node
from registry.backend.identifiers import encode_id
from registry.backend.paging import Page

fields = FieldSet()

NEWEST_SDK = "0.31.999"
"""Newest SDK that the server claims to know; older SDKs compare themselves with it."""


def user_node(context: Context) -> Node:
    """Return the single user."""
    return Node("User", {"name": context.backend.settings.entity})


def entity_node(name: str) -> Node:
    """Return an entity, known by its name alone."""
    return Node("Entity", {"name": name})


def teams(connection: sqlite3.Connection, user: str) -> list[str]:
    """Return the entities that have projects, other than the user's own."""
    rows = connection.execute(
        "SELECT DISTINCT entity FROM projects WHERE entity <> ? ORDER BY entity", (user,)
    )
    return [row["entity"] for row in rows]


@fields.query("viewer")
def viewer(context: Context) -> Node:
    """Return who asks: always the single user."""
    return user_node(context)


@fields.query("serverInfo")
def server_info(_context: Context) -> Node:
    """Return the node of what the server says about itself."""
    return Node("ServerInfo", {})


@fields.on("ServerInfo", "features")
def features(context: Context, _source: object) -> list[dict[str, object]]:
    """Return the features that the parts support."""
    names = sorted({name for part in context.backend.parts for name in part.features})
    return [{"name": name, "isEnabled": True} for name in names]


# Old SDKs read these as JSON objects, not as JSON text.
fields.constants(
    "ServerInfo",
    {
        "cliVersionInfo": {"max_cli_version": NEWEST_SDK},
        "latestLocalVersionInfo": None,
    },
)


# Old SDKs ask which settings there are before they make a run.
fields.constants("ServerSettings", {"serverMessages": []})


@fields.query("users")
def users(context: Context, *, query: str | None = None) -> dict[str, object]:
    """Return the single user if `query` is part of the name."""
    matches = (query or "") in context.backend.settings.entity or "@" in (query or "")
    return Page.of(None, None).cut([user_node(context)] if matches else [])


@fields.query("entity")
def entity(context: Context, *, name: str | None = None) -> Node | None:
    """Return an entity that owns something, or the user's own; null otherwise."""
    user = context.backend.settings.entity
    if name and name != user and name not in teams(context.connection, user):
        return None
    return entity_node(name or user)


@fields.on("User", "id")
def user_id(_context: Context, _user: Mapping[str, object]) -> str:
    """Return the id of the single user."""
    return encode_id("User", 1)


@fields.on("User", "email")
def email(_context: Context, user: Mapping[str, object]) -> str:
    """Return an address that belongs to nobody."""
    return f"{user['name']}@localhost"


@fields.on("User", "teams")
def user_teams(context: Context, user: Mapping[str, object]) -> dict[str, object]:
    """Return the user's own entity and all others that have projects."""
    own = str(user["name"])
    names = [own, *teams(context.connection, own)]
    return Page.of(None, None, default=10_000).cut([entity_node(name) for name in names])


@fields.on("User", "apiKeys")
def api_keys(_context: Context, _user: object) -> dict[str, object]:
    """Return no keys: the only one is never shown over the wire."""
    return Page.of(None, None).cut([])


fields.columns("User", {"name": "name", "username": "name", "entity": "name"})
fields.constants(
    "User",
    {
        "admin": True,
        "flags": "{}",
        "deletedAt": None,
        "photoUrl": None,
        "accountType": "MEMBER",
        "pending": False,
        "apiKey": None,
    },
)


@fields.on("Entity", "id")
def entity_id(_context: Context, source: Mapping[str, object]) -> str:
    """Return the entity's id, made of its name."""
    return encode_id("Entity", str(source["name"]))


@fields.on("Entity", "isTeam")
def is_team(context: Context, source: Mapping[str, object]) -> bool:
    """Tell entities that are not the user's own."""
    return source["name"] != context.backend.settings.entity


@fields.on("Entity", "entityType")
def entity_type(context: Context, source: Mapping[str, object]) -> str:
    """Return `team` or `user`."""
    return "team" if is_team(context, source) else "user"


@fields.on("Entity", "members")
def members(context: Context, _source: object) -> list[Node]:
    """Return the single user, who is a member of everything."""
    return [user_node(context)]


@fields.on("Entity", "storageBytes")
def storage_bytes(context: Context, source: Mapping[str, object]) -> int:
    """Return the bytes of files saved by the entity's runs."""
    total: int = context.connection.execute(
        "SELECT coalesce(sum(run_files.size_bytes), 0) FROM run_files"
        " JOIN runs ON runs.id = run_id JOIN projects ON projects.id = project_id"
        " WHERE entity = ?",
        (source["name"],),
    ).fetchone()[0]
    return total


fields.columns("Entity", {"name": "name"})
fields.constants(
    "Entity",
    {
        "available": False,
        "photoUrl": None,
        "readOnly": False,
        "readOnlyAdmin": False,
        "privateOnly": True,
        "codeSavingEnabled": False,
        "defaultAccess": "USER_WRITE",
        "isPaid": False,
        "limits": None,
    },
)
