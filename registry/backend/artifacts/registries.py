"""The organisation's registry: projects `wandb-registry-*` whose portfolios are shared."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

from registry.backend.artifacts.collections import ensure_type, list_types
from registry.backend.clock import now_text, public_text
from registry.errors import UsageError

REGISTRY_PREFIX = "wandb-registry-"
_ACCESS = frozenset({"PRIVATE", "RESTRICTED"})


@dataclass(frozen=True, slots=True)
class RegistryChange:
    """New properties of a registry; None leaves what is there.

    Attributes:
        access: `PRIVATE` (the organisation) or `RESTRICTED`.
        allow_all_types: whether versions of any type may be linked.
        types: types to allow besides those that are; none is ever taken back.
    """

    access: str | None = None
    allow_all_types: bool | None = None
    types: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RegistryState:
    """Properties of a registry as they are."""

    access: str
    allow_all_types: bool
    updated_at: str


def organization_name(user: str) -> str:
    """Return the name of the one organisation, and of its entity."""
    return f"{user}-org"


def is_registry(project: sqlite3.Row) -> bool:
    """Tell registries from ordinary projects."""
    return str(project["name"]).startswith(REGISTRY_PREFIX)


def registry_state(connection: sqlite3.Connection, project: sqlite3.Row) -> RegistryState:
    """Return a project's registry properties; defaults if nobody set any."""
    row = connection.execute(
        "SELECT * FROM artifact_registries WHERE project_id = ?", (project["id"],)
    ).fetchone()
    if row is None:
        return RegistryState("PRIVATE", True, project["created_at"])
    return RegistryState(row["access"], bool(row["allow_all_types"]), row["updated_at"])


def change_registry(
    connection: sqlite3.Connection, project: sqlite3.Row, change: RegistryChange
) -> None:
    """Set a registry's properties.

    Raises:
        UsageError: an unknown access level or a type name that is not allowed.
    """
    state = registry_state(connection, project)
    access = state.access if change.access is None else change.access
    if access not in _ACCESS:
        raise UsageError(f"{access!r} is no access level of a registry.")
    allow_all = state.allow_all_types if change.allow_all_types is None else change.allow_all_types
    connection.execute(
        "INSERT INTO artifact_registries (project_id, access, allow_all_types, updated_at)"
        " VALUES (?, ?, ?, ?) ON CONFLICT (project_id) DO UPDATE SET access = excluded.access,"
        " allow_all_types = excluded.allow_all_types, updated_at = excluded.updated_at",
        (project["id"], access, int(allow_all), now_text()),
    )
    for name in change.types:
        ensure_type(connection, project["id"], name)


def check_link(connection: sqlite3.Connection, project: sqlite3.Row, type_name: str) -> None:
    """Fail if a registry does not take versions of a type.

    Raises:
        UsageError: it does not.
    """
    if not is_registry(project) or registry_state(connection, project).allow_all_types:
        return
    allowed = [row["name"] for row in list_types(connection, project["id"])]
    if type_name not in allowed:
        raise UsageError(
            f"The registry {project['name']!r} takes artifacts of type"
            f" {', '.join(allowed) or '(none)'}, not {type_name!r}."
        )


def list_registries(connection: sqlite3.Connection, organization: str) -> list[sqlite3.Row]:
    """Return the organisation's registries (rows of projects), oldest first."""
    return connection.execute(
        "SELECT * FROM projects WHERE entity = ? AND name LIKE ? ORDER BY id",
        (organization, f"{REGISTRY_PREFIX}%"),
    ).fetchall()


def registry_record(connection: sqlite3.Connection, project: sqlite3.Row) -> dict[str, Any]:
    """Return what filters and orders see of a registry."""
    return {
        "id": project["id"],
        "project_id": project["id"],
        "name": project["name"],
        "description": project["description"],
        "created_at": public_text(project["created_at"]),
        "updated_at": public_text(registry_state(connection, project).updated_at),
    }


def rename_project(connection: sqlite3.Connection, project: sqlite3.Row, name: str) -> sqlite3.Row:
    """Give a project another name and return its row.

    Raises:
        UsageError: the name is taken.
    """
    try:
        connection.execute("UPDATE projects SET name = ? WHERE id = ?", (name, project["id"]))
    except sqlite3.IntegrityError as error:
        raise UsageError(f"There is another project {name!r}.") from error
    row: sqlite3.Row = connection.execute(
        "SELECT * FROM projects WHERE id = ?", (project["id"],)
    ).fetchone()
    return row
