"""GraphQL: change and delete versions, aliases, links and collections; use a version."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

from registry.backend.artifacts.aliases import (
    add_membership,
    find_membership,
    remove_aliases,
    remove_membership,
    replace_aliases,
    set_aliases,
)
from registry.backend.artifacts.collections import (
    CollectionChange,
    CollectionKind,
    add_collection_tags,
    change_collection,
    collection_tags,
    delete_collection_tags,
    ensure_collection,
    get_collection,
    move_sequence,
    require_collection,
)
from registry.backend.artifacts.lineage import Direction, record_lineage
from registry.backend.artifacts.nodes import (
    alias_names,
    artifact_node,
    artifact_of,
    collection_node,
    collection_of,
    made_project,
    membership_node,
    project_of,
    tag_names,
    tag_nodes,
)
from registry.backend.artifacts.registries import check_link
from registry.backend.artifacts.versions import (
    VersionChange,
    artifact_by_client_id,
    change_version,
    delete_collection,
    delete_version,
    get_artifact,
)
from registry.backend.context import Context
from registry.backend.graphql.errors import OperationError
from registry.backend.graphql.fields import FieldSet
from registry.backend.runs.lookup import named_run

FIELDS = FieldSet()

Row = sqlite3.Row
Inputs = list[dict[str, Any]]
_SUCCESS = {"success": True}


@FIELDS.mutation("addAliases")
def _add_aliases(context: Context, *, artifact_id: str, aliases: Inputs) -> Mapping[str, object]:
    artifact = artifact_of(context, artifact_id)
    for target, name in _targets(context, artifact, aliases):
        set_aliases(context.connection, target["collection_id"], target["id"], [name])
    return _SUCCESS


@FIELDS.mutation("deleteAliases")
def _delete_aliases(context: Context, *, artifact_id: str, aliases: Inputs) -> Mapping[str, object]:
    artifact = artifact_of(context, artifact_id)
    for target, name in _targets(context, artifact, aliases):
        remove_aliases(context.connection, target["id"], [name])
    return _SUCCESS


def _targets(context: Context, artifact: Row, aliases: Inputs) -> list[tuple[Row, str]]:
    """Return the membership and the alias that each input means.

    Raises:
        OperationError: the version is not in the collection.
    """
    found = []
    for item in aliases:
        project = project_of(context, item["entityName"], item["projectName"])
        name = item["artifactCollectionName"]
        collection = require_collection(context.connection, project["id"], name)
        membership = find_membership(context.connection, collection["id"], artifact["id"])
        if membership is None:
            raise OperationError(f"The version is not in the collection {name!r}.")
        found.append((membership, item["alias"]))
    return found


@FIELDS.mutation("updateArtifact")
def _update_artifact(
    context: Context,
    *,
    artifact_id: str,
    description: str | None = None,
    metadata: str | None = None,
    ttl_duration_seconds: int | None = None,
    tags_to_add: Inputs | None = None,
    tags_to_delete: Inputs | None = None,
    aliases: Inputs | None = None,
    labels: str | None = None,
) -> Mapping[str, object]:
    artifact = artifact_of(context, artifact_id)
    change = VersionChange(
        description=description,
        metadata=metadata,
        ttl_s=ttl_duration_seconds,
        tags_to_add=tag_names(tags_to_add),
        tags_to_delete=tag_names(tags_to_delete),
    )
    change_version(context.connection, artifact["id"], change)
    own = find_membership(context.connection, artifact["sequence_id"], artifact["id"])
    if aliases is not None and own is not None:
        names = alias_names(aliases, artifact["sequence_name"])
        replace_aliases(context.connection, own["collection_id"], own["id"], names)
    return {"artifact": artifact_node(get_artifact(context.connection, artifact["id"]))}


@FIELDS.mutation("deleteArtifact")
def _delete_artifact(
    context: Context, *, artifact_id: str, delete_aliases: bool | None = None
) -> Mapping[str, object]:
    artifact = artifact_of(context, artifact_id)
    dropped = delete_version(
        context.connection, artifact["id"], delete_aliases=bool(delete_aliases)
    )
    _drop(context, dropped)
    return {"artifact": {"__typename": "Artifact", "id": artifact_id, "state": "DELETED"}}


@FIELDS.mutation("linkArtifact")
def _link_artifact(
    context: Context,
    *,
    artifact_id: str | None = None,
    client_id: str | None = None,
    artifact_portfolio_id: str | None = None,
    artifact_portfolio_name: str | None = None,
    entity_name: str | None = None,
    project_name: str | None = None,
    aliases: Inputs | None = None,
) -> Mapping[str, object]:
    if artifact_id is not None:
        artifact = artifact_of(context, artifact_id)
    else:
        found = artifact_by_client_id(context.connection, client_id or "")
        artifact = get_artifact(context.connection, found)
    if artifact["state"] != "COMMITTED":
        raise OperationError("The version is not committed yet and cannot be linked.")
    if artifact_portfolio_id is not None:
        portfolio = collection_of(context, artifact_portfolio_id)
    else:
        portfolio = _portfolio(
            context, artifact, entity_name, project_name, artifact_portfolio_name or ""
        )
    membership_id = add_membership(context.connection, portfolio["id"], artifact["id"])
    set_aliases(context.connection, portfolio["id"], membership_id, alias_names(aliases))
    membership = find_membership(context.connection, portfolio["id"], artifact["id"])
    number = membership["version_index"] if membership else None
    return {"versionIndex": number, "artifactMembership": membership_node(membership)}


def _portfolio(
    context: Context, artifact: Row, entity: str | None, project_name: str | None, name: str
) -> Row:
    project = made_project(context, entity, project_name)
    check_link(context.connection, project, artifact["type_name"])
    return ensure_collection(
        context.connection,
        project["id"],
        name,
        kind=CollectionKind.PORTFOLIO,
        type_name=artifact["type_name"],
    )


@FIELDS.mutation("unlinkArtifact")
def _unlink_artifact(
    context: Context, *, artifact_id: str, artifact_portfolio_id: str
) -> Mapping[str, object]:
    portfolio = collection_of(context, artifact_portfolio_id)
    artifact = artifact_of(context, artifact_id)
    membership = find_membership(context.connection, portfolio["id"], artifact["id"])
    if portfolio["kind"] != CollectionKind.PORTFOLIO or membership is None:
        raise OperationError(f"The version is not linked into {portfolio['name']!r}.")
    remove_membership(context.connection, membership)
    return {**_SUCCESS, "artifactID": artifact_id, "clientMutationId": None}


@FIELDS.mutation("useArtifact")
def _use_artifact(
    context: Context,
    *,
    artifact_id: str,
    entity_name: str | None = None,
    project_name: str | None = None,
    run_name: str | None = None,
    used_as: str | None = None,
    artifact_entity_name: str | None = None,
    artifact_project_name: str | None = None,
) -> Mapping[str, object]:
    artifact = artifact_of(context, artifact_id)
    entity = context.backend.settings.entity
    run = named_run(context.connection, entity_name, project_name, run_name, entity)
    if run is None:
        raise OperationError(f"Run {entity_name}/{project_name}/{run_name} was not found.")
    record_lineage(context.connection, run["id"], artifact["id"], Direction.INPUT, used_as)
    return {"artifact": artifact_node(artifact)}


@FIELDS.mutation("updateArtifactSequence")
def _update_sequence(
    context: Context,
    *,
    artifact_sequence_id: str,
    name: str | None = None,
    description: str | None = None,
) -> Mapping[str, object]:
    return _changed(context, artifact_sequence_id, CollectionChange(name, description))


@FIELDS.mutation("updateArtifactPortfolio")
def _update_portfolio(
    context: Context,
    *,
    artifact_portfolio_id: str,
    name: str | None = None,
    description: str | None = None,
) -> Mapping[str, object]:
    return _changed(context, artifact_portfolio_id, CollectionChange(name, description))


def _changed(context: Context, public_id: str, change: CollectionChange) -> Mapping[str, object]:
    collection = collection_of(context, public_id)
    change_collection(context.connection, collection["id"], change)
    return _collection_payload(context, collection["id"])


def _collection_payload(context: Context, collection_id: int) -> Mapping[str, object]:
    row = get_collection(context.connection, collection_id)
    return {"artifactCollection": collection_node(row)}


@FIELDS.mutation("moveArtifactSequence")
def _move_artifact_sequence(
    context: Context, *, artifact_sequence_id: str, destination_artifact_type_name: str
) -> Mapping[str, object]:
    collection = collection_of(context, artifact_sequence_id)
    move_sequence(context.connection, collection["id"], destination_artifact_type_name)
    return _collection_payload(context, collection["id"])


@FIELDS.mutation("deleteArtifactSequence")
def _delete_sequence(context: Context, *, artifact_sequence_id: str) -> Mapping[str, object]:
    return _deleted(context, artifact_sequence_id, "ArtifactSequence")


@FIELDS.mutation("deleteArtifactPortfolio")
def _delete_portfolio(context: Context, *, artifact_portfolio_id: str) -> Mapping[str, object]:
    return _deleted(context, artifact_portfolio_id, "ArtifactPortfolio")


def _deleted(context: Context, public_id: str, typename: str) -> Mapping[str, object]:
    collection = collection_of(context, public_id)
    if collection_node(collection).typename != typename:
        raise OperationError(f"{collection['name']!r} is no {typename}.")
    _drop(context, delete_collection(context.connection, collection["id"]))
    return {"artifactCollection": {"__typename": "DeletedCollection", "state": "DELETED"}}


@FIELDS.mutation("createArtifactCollectionTagAssignments")
def _create_collection_tags(
    context: Context,
    *,
    entity_name: str,
    project_name: str,
    artifact_collection_name: str,
    tags: Inputs,
) -> Mapping[str, object]:
    project = project_of(context, entity_name, project_name)
    row = require_collection(context.connection, project["id"], artifact_collection_name)
    add_collection_tags(context.connection, row["id"], tag_names(tags))
    kept = collection_tags(context.connection, row["id"])
    return {"tags": tag_nodes(kept, "CollectionTag")}


@FIELDS.mutation("deleteArtifactCollectionTagAssignments")
def _remove_collection_tags(
    context: Context,
    *,
    entity_name: str,
    project_name: str,
    artifact_collection_name: str,
    tags: Inputs,
) -> Mapping[str, object]:
    project = project_of(context, entity_name, project_name)
    row = require_collection(context.connection, project["id"], artifact_collection_name)
    delete_collection_tags(context.connection, row["id"], tag_names(tags))
    return _SUCCESS


def _drop(context: Context, blobs: set[str]) -> None:
    for sha256 in blobs:
        context.drop_blob(sha256)
