"""GraphQL: types and collections of a project, and the versions in a collection."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from typing import Any

from registry.backend.artifacts.aliases import (
    collection_aliases,
    membership_aliases,
    resolve_alias,
)
from registry.backend.artifacts.collections import (
    collection_tags,
    find_collection,
    find_type,
    list_collections,
    list_types,
)
from registry.backend.artifacts.nodes import (
    COLLECTION_TYPES,
    alias_node,
    artifact_node,
    collection_node,
    membership_node,
    project_node,
    tag_nodes,
)
from registry.backend.artifacts.search import matches, ordered, parse_filter
from registry.backend.artifacts.versions import artifact_tags, get_artifact, latest_version
from registry.backend.clock import public_text
from registry.backend.context import Context
from registry.backend.graphql.fields import FieldSet, Node
from registry.backend.identifiers import decode_id, encode_id
from registry.backend.paging import Page

FIELDS = FieldSet()

Row = sqlite3.Row
Connection = dict[str, object]

_NEWEST_VERSION = "-version_index"

FIELDS.columns("ArtifactType", {"name": "name", "description": "description"})


def _on_collections(*names: str) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """Declare the same field of sequences and portfolios."""

    def declare(resolver: Callable[..., object]) -> Callable[..., object]:
        for typename in COLLECTION_TYPES:
            FIELDS.on(typename, *names)(resolver)
        return resolver

    return declare


for _typename in COLLECTION_TYPES:
    FIELDS.columns(_typename, {"name": "name", "description": "description"})
    FIELDS.constants(_typename, {"state": "READY", "ttlIsInherited": True})
    FIELDS.columns(_typename, {"digestAlgorithm": "digest_algorithm"})


@FIELDS.on("ArtifactType", "createdAt")
def _type_created_at(_: Context, kind: Row) -> str | None:
    return public_text(kind["created_at"])


@FIELDS.on("Project", "artifactTypes")
def _artifact_types(
    context: Context,
    project: Row,
    *,
    first: int | None = None,
    after: str | None = None,
    include_all: bool | None = None,
) -> Connection:
    rows = list_types(context.connection, project["id"])
    return Page.of(first, after, default=1000).cut([Node("ArtifactType", row) for row in rows])


@FIELDS.on("Project", "artifactType")
def _artifact_type(context: Context, project: Row, *, name: str) -> Node | None:
    row = find_type(context.connection, project["id"], name)
    return Node("ArtifactType", row) if row else None


@FIELDS.on("Project", "artifactCollections")
def _collections_of_project(
    context: Context,
    project: Row,
    *,
    first: int | None = None,
    after: str | None = None,
    filters: str | None = None,
    order: str | None = None,
) -> Connection:
    rows = list_collections(context.connection, project["id"])
    return _collections_page(context, rows, filters, order, Page.of(first, after))


@FIELDS.on("ArtifactType", "artifactCollections")
def _collections_of_type(
    context: Context,
    kind: Row,
    *,
    first: int | None = None,
    after: str | None = None,
    filters: str | None = None,
    order: str | None = None,
) -> Connection:
    rows = list_collections(context.connection, kind["project_id"], kind["name"])
    return _collections_page(context, rows, filters, order, Page.of(first, after))


def _collections_page(
    context: Context, rows: list[Row], filters: str | None, order: str | None, page: Page
) -> Connection:
    wanted = parse_filter(filters)
    kept = [row for row in rows if matches(collection_record(context.connection, row), wanted)]
    if order:
        kept = ordered(kept, order, lambda row: collection_record(context.connection, row), order)
    return page.cut([collection_node(row) for row in kept])


def collection_record(connection: sqlite3.Connection, row: Row) -> dict[str, Any]:
    """Return what filters and orders see of a collection."""
    tags = [tag["name"] for tag in collection_tags(connection, row["id"])]
    return {
        "id": row["id"],
        "artifact_collection_id": row["id"],
        "name": row["name"],
        "description": row["description"],
        "type": row["type_name"],
        "tag": tags,
        "tags": tags,
        "created_at": public_text(row["created_at"]),
        "updated_at": public_text(row["updated_at"]),
    }


@FIELDS.on("Project", "artifactCollection")
def _collection_of_project(context: Context, project: Row, *, name: str) -> Node | None:
    row = find_collection(context.connection, project["id"], name)
    return collection_node(row) if row else None


@FIELDS.on("ArtifactType", "artifactSequence")
def _sequence_of_type(context: Context, kind: Row, *, name: str) -> Node | None:
    node = _collection_of_type(context, kind, name=name)
    return node if isinstance(node, Node) and node.typename == "ArtifactSequence" else None


@FIELDS.on("ArtifactType", "artifactCollection")
def _collection_of_type(context: Context, kind: Row, *, name: str) -> Node | None:
    row = find_collection(context.connection, kind["project_id"], name)
    return collection_node(row) if row and row["type_id"] == kind["id"] else None


@FIELDS.on("ArtifactType", "artifact")
def _artifact_of_type(context: Context, kind: Row, *, name: str) -> Node | None:
    collection, _, alias = name.partition(":")
    row = find_collection(context.connection, kind["project_id"], collection)
    if row is None or row["type_id"] != kind["id"]:
        return None
    membership = resolve_alias(context.connection, row["id"], alias or "latest")
    if membership is None:
        return None
    return artifact_node(get_artifact(context.connection, membership["artifact_id"]))


@FIELDS.query("artifactCollection")
def _collection_by_id(context: Context, *, id: str) -> Node | None:
    row = context.connection.execute(
        "SELECT project_id, name FROM artifact_collections WHERE id = ?",
        (decode_id("ArtifactCollection", id),),
    ).fetchone()
    if row is None:
        return None
    found = find_collection(context.connection, row["project_id"], row["name"])
    return collection_node(found) if found else None


@_on_collections("id")
def _collection_id(_: Context, collection: Row) -> str:
    return encode_id("ArtifactCollection", collection["id"])


@_on_collections("createdAt")
def _created_at(_: Context, collection: Row) -> str | None:
    return public_text(collection["created_at"])


@_on_collections("updatedAt")
def _updated_at(_: Context, collection: Row) -> str | None:
    return public_text(collection["updated_at"])


@_on_collections("project")
def _project_of_collection(context: Context, collection: Row) -> Node:
    return project_node(context.connection, collection["project_id"])


@_on_collections("defaultArtifactType")
def _default_artifact_type(context: Context, collection: Row) -> Node:
    row = find_type(context.connection, collection["project_id"], collection["type_name"])
    return Node("ArtifactType", row)


@_on_collections("tags")
def _tags(
    context: Context, collection: Row, *, first: int | None = None, after: str | None = None
) -> Connection:
    nodes = tag_nodes(collection_tags(context.connection, collection["id"]), "CollectionTag")
    return Page.of(first, after, default=1000).cut(nodes)


@_on_collections("aliases")
def _aliases(
    context: Context, collection: Row, *, first: int | None = None, after: str | None = None
) -> Connection:
    rows = collection_aliases(context.connection, collection["id"])
    return Page.of(first, after, default=1000).cut([alias_node(row) for row in rows])


@_on_collections("artifactMembership")
def _artifact_membership(context: Context, collection: Row, *, alias_name: str) -> Node | None:
    return membership_node(resolve_alias(context.connection, collection["id"], alias_name))


@_on_collections("latestArtifact")
def _latest_artifact(context: Context, collection: Row) -> Node | None:
    return artifact_node(latest_version(context.connection, collection["id"]))


@_on_collections("artifacts")
def _artifacts(
    context: Context,
    collection: Row,
    *,
    first: int | None = None,
    after: str | None = None,
    filters: str | None = None,
    order: str | None = None,
) -> Connection:
    connection = context.connection
    page = Page.of(first, after)
    wanted = parse_filter(filters)
    memberships = connection.execute(
        "SELECT * FROM artifact_memberships WHERE collection_id = ? ORDER BY version_index DESC",
        (collection["id"],),
    ).fetchall()
    pairs = [(row, get_artifact(connection, row["artifact_id"])) for row in memberships]

    def record(pair: tuple[Row, Row]) -> dict[str, Any]:
        return version_record(connection, *pair)

    if wanted and wanted != {"state": "COMMITTED"}:
        pairs = [pair for pair in pairs if matches(record(pair), wanted)]
    if order:
        pairs = ordered(pairs, order, record, _NEWEST_VERSION)
    result = page.cut([artifact_node(artifact) for _, artifact in pairs])
    window = pairs[page.offset : page.offset + page.limit]
    edges = result["edges"]
    if isinstance(edges, list):
        for edge, (membership, _) in zip(edges, window, strict=True):
            edge["version"] = f"v{membership['version_index']}"
    return result


def version_record(
    connection: sqlite3.Connection, membership: Row, artifact: Row
) -> dict[str, Any]:
    """Return what filters and orders see of a version in a collection."""
    tags_of = [tag["name"] for tag in artifact_tags(connection, artifact["id"])]
    aliases_of = [row["alias"] for row in membership_aliases(connection, membership["id"])]
    metadata_of = json.loads(artifact["metadata"] or "{}")
    created = public_text(artifact["created_at"])
    return {
        "id": artifact["id"],
        "artifact_id": artifact["id"],
        "state": artifact["state"],
        "version": membership["version_index"],
        "version_index": membership["version_index"],
        "digest": artifact["digest"],
        "description": artifact["description"],
        "tag": tags_of,
        "tags": tags_of,
        "alias": aliases_of,
        "aliases": aliases_of,
        "metadata": metadata_of,
        "artifact_metadata": metadata_of,
        "size": artifact["size_bytes"],
        "artifact_size": artifact["size_bytes"],
        "created_at": created,
        "artifact_created_at": created,
        "updated_at": public_text(artifact["updated_at"]),
        "acm_created_at": public_text(membership["created_at"]),
    }
