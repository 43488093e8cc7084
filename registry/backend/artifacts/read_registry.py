"""GraphQL: the organisation, its registries, and searching them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

from registry.backend.artifacts.collections import list_collections
from registry.backend.artifacts.nodes import collection_node, membership_node, project_of
from registry.backend.artifacts.read_collection import collection_record, version_record
from registry.backend.artifacts.registries import (
    RegistryChange,
    change_registry,
    is_registry,
    list_registries,
    organization_name,
    registry_record,
    registry_state,
    rename_project,
)
from registry.backend.artifacts.search import matches, ordered, parse_filter
from registry.backend.artifacts.versions import get_artifact
from registry.backend.clock import public_text
from registry.backend.context import Context
from registry.backend.graphql.errors import OperationError
from registry.backend.graphql.fields import FieldSet, Node
from registry.backend.identifiers import encode_id
from registry.backend.paging import Page
from registry.backend.runs.lookup import checked_name, project_row

FIELDS = FieldSet()

Row = sqlite3.Row
Connection = dict[str, object]
Source = Mapping[str, Any]

FIELDS.columns("Organization", {"name": "name"})
FIELDS.constants(
    "Organization",
    {
        "coreWeaveOrganizationId": None,
        "advancedRegistryFeatures": {"advancedSearch": False},
        "featureFlags": [],
        "orgType": "ORGANIZATION",
        "stripeBillingInfo": None,
        "user": None,
        "subscriptions": [],
        "members": [],
    },
)
FIELDS.columns("OrganizationEntity", {"name": "name"})
FIELDS.constants(
    "OrganizationEntity",
    {"__typename": "Entity", "entityType": "organization", "isTeam": False, "user": None},
)
FIELDS.constants("Entity", {"user": None, "xxhashDigestsEnabled": True})
FIELDS.constants("Project", {"members": [], "teamMembers": []})


@FIELDS.on("Entity", "organization")
@FIELDS.on("OrganizationEntity", "organization")
def _organization_of(context: Context, _: object) -> Node:
    return _organization(context)


def _organization(context: Context) -> Node:
    return Node("Organization", {"name": organization_name(context.backend.settings.entity)})


@FIELDS.query("organization")
def _organization_by_name(context: Context, *, name: str | None = None) -> Node | None:
    user = context.backend.settings.entity
    return _organization(context) if name in (user, organization_name(user)) else None


@FIELDS.on("User", "organizations")
def _organizations(context: Context, _: object) -> list[Node]:
    return [_organization(context)]


@FIELDS.on("Organization", "id")
def _organization_id(_: Context, source: Source) -> str:
    return encode_id("Organization", str(source["name"]))


@FIELDS.on("Organization", "orgEntity")
def _org_entity(_: Context, source: Source) -> Node:
    return Node("OrganizationEntity", source)


@FIELDS.on("OrganizationEntity", "id")
def _org_entity_id(_: Context, source: Source) -> str:
    return encode_id("Entity", str(source["name"]))


@FIELDS.on("Entity", "project")
@FIELDS.on("OrganizationEntity", "project")
def _project_of_entity(context: Context, source: Source, *, name: str | None = None) -> Node | None:
    row = project_row(context.connection, str(source["name"]), name, str(source["name"]))
    return Node("Project", row) if row else None


@FIELDS.on("Project", "access")
def _access(context: Context, project: Row) -> str:
    return registry_state(context.connection, project).access


@FIELDS.on("Project", "allowAllArtifactTypesInRegistry")
def _allow_all_types(context: Context, project: Row) -> bool:
    return registry_state(context.connection, project).allow_all_types


@FIELDS.on("Project", "updatedAt")
def _updated_at(context: Context, project: Row) -> str | None:
    return public_text(registry_state(context.connection, project).updated_at)


def change_upserted(context: Context, project: Row, given: Mapping[str, Any]) -> None:
    """Keep what `upsertModel` says about a registry; nothing to do for other projects.

    Raises:
        UsageError: an unknown access level or a type name that is not allowed.
    """
    if not is_registry(project):
        return
    change = RegistryChange(
        access=given.get("access"),
        allow_all_types=given.get("allow_all_artifact_types_in_registry"),
        types=tuple(item["name"] for item in given.get("artifact_types") or ()),
    )
    change_registry(context.connection, project, change)


@FIELDS.mutation("renameProject")
def _rename(
    context: Context, *, entity_name: str, old_project_name: str, new_project_name: str
) -> Mapping[str, object]:
    project = project_of(context, entity_name, old_project_name)
    name = checked_name(new_project_name, "project")
    row = rename_project(context.connection, project, name)
    return {"project": Node("Project", row), "inserted": False}


@FIELDS.mutation(
    "createProjectMembers",
    "deleteProjectMembers",
    "updateProjectMember",
    "updateProjectTeamMember",
)
def _members(_: Context) -> None:
    raise OperationError("This is a single-user server: registries have no members.")


@FIELDS.on("OrganizationEntity", "projects")
def _registry_page(
    context: Context,
    source: Source,
    *,
    filters: str | None = None,
    order: str | None = None,
    first: int | None = None,
    after: str | None = None,
) -> Connection:
    rows = _registries(context, source, filters)
    if order:
        rows = ordered(rows, order, lambda row: registry_record(context.connection, row), order)
    return Page.of(first, after).cut([Node("Project", row) for row in rows])


def _registries(context: Context, source: Source, filters: str | None) -> list[Row]:
    wanted = parse_filter(filters)
    rows = list_registries(context.connection, str(source["name"]))
    return [row for row in rows if matches(registry_record(context.connection, row), wanted)]


@FIELDS.on("OrganizationEntity", "artifactCollections")
def _collection_page(
    context: Context,
    source: Source,
    *,
    project_filters: str | None = None,
    filters: str | None = None,
    collection_types: list[str] | None = None,
    order: str | None = None,
    first: int | None = None,
    after: str | None = None,
) -> Connection:
    rows = _collections(context, source, project_filters, filters)
    if collection_types:
        rows = [row for row in rows if row["kind"] in collection_types]
    if order:
        rows = ordered(rows, order, lambda row: collection_record(context.connection, row), order)
    return Page.of(first, after).cut([collection_node(row) for row in rows])


def _collections(
    context: Context, source: Source, project_filters: str | None, filters: str | None
) -> list[Row]:
    wanted = parse_filter(filters)
    return [
        row
        for project in _registries(context, source, project_filters)
        for row in list_collections(context.connection, project["id"])
        if matches(collection_record(context.connection, row), wanted)
    ]


@FIELDS.on("OrganizationEntity", "artifactMemberships")
def _memberships(
    context: Context,
    source: Source,
    *,
    project_filters: str | None = None,
    collection_filters: str | None = None,
    filters: str | None = None,
    order: str | None = None,
    first: int | None = None,
    after: str | None = None,
) -> Connection:
    wanted = parse_filter(filters)
    found = [
        row
        for collection in _collections(context, source, project_filters, collection_filters)
        for row in context.connection.execute(
            "SELECT * FROM artifact_memberships WHERE collection_id = ?"
            " ORDER BY version_index DESC",
            (collection["id"],),
        ).fetchall()
    ]

    def record(row: Row) -> dict[str, Any]:
        artifact = get_artifact(context.connection, row["artifact_id"])
        return version_record(context.connection, row, artifact)

    if wanted:
        found = [row for row in found if matches(record(row), wanted)]
    if order:
        found = ordered(found, order, record, order)
    return Page.of(first, after).cut([membership_node(row) for row in found])
