"""GraphQL: a version, its membership in collections, its aliases and files."""

from __future__ import annotations

import json
import mimetypes
import sqlite3
from collections.abc import Mapping

from registry.backend.artifacts.aliases import (
    artifact_aliases,
    link_numbers,
    list_memberships,
    membership_aliases,
    resolve_name,
)
from registry.backend.artifacts.collections import get_collection
from registry.backend.artifacts.lineage import Direction, artifact_runs, run_artifacts
from registry.backend.artifacts.manifests import DigestAlgorithm
from registry.backend.artifacts.nodes import (
    alias_node,
    artifact_node,
    collection_node,
    membership_node,
    project_node,
    tag_nodes,
)
from registry.backend.artifacts.versions import (
    TTL_DISABLED,
    artifact_by_client_id,
    artifact_tags,
    find_artifact,
    get_artifact,
)
from registry.backend.clock import public_text
from registry.backend.context import Context
from registry.backend.graphql.fields import FieldSet, Node
from registry.backend.identifiers import decode_id, encode_id
from registry.backend.paging import Page

FIELDS = FieldSet()

Row = sqlite3.Row
Connection = dict[str, object]

FIELDS.columns(
    "Artifact",
    {
        "versionIndex": "version_index",
        "description": "description",
        "state": "state",
        "digest": "digest",
        "digestAlgorithm": "digest_algorithm",
        "size": "size_bytes",
        "fileCount": "file_count",
        "historyStep": "history_step",
    },
)
FIELDS.columns("ArtifactCollectionMembership", {"versionIndex": "version_index"})
FIELDS.columns("ArtifactAlias", {"alias": "alias"})
# Not the type of a run's files, whose rows are others; clients see one name for both.
FIELDS.constants("ArtifactFile", {"__typename": "File"})


@FIELDS.query("artifact")
def _artifact_by_id(context: Context, *, id: str) -> Node | None:
    return artifact_node(find_artifact(context.connection, decode_id("Artifact", id)))


@FIELDS.query("clientIDMapping")
def _client_id_mapping(context: Context, *, client_id: str) -> Mapping[str, object] | None:
    artifact_id = artifact_by_client_id(context.connection, client_id)
    return {"serverID": encode_id("Artifact", artifact_id)} if artifact_id else None


@FIELDS.on("Project", "artifact")
def _artifact_by_name(
    context: Context, project: Row, *, name: str, enable_tracking: bool | None = None
) -> Node | None:
    membership = resolve_name(context.connection, project["id"], name)
    if membership is None:
        return None
    return artifact_node(find_artifact(context.connection, membership["artifact_id"]))


@FIELDS.on("Project", "artifactCollectionMembership")
def _membership_by_name(context: Context, project: Row, *, name: str) -> Node | None:
    return membership_node(resolve_name(context.connection, project["id"], name))


@FIELDS.on("Artifact", "id")
def _artifact_id(_: Context, artifact: Row) -> str:
    return encode_id("Artifact", artifact["id"])


@FIELDS.on("Artifact", "metadata")
def _metadata(_: Context, artifact: Row) -> str:
    return artifact["metadata"] or "{}"


@FIELDS.on("Artifact", "commitHash")
def _commit_hash(_: Context, artifact: Row) -> str | None:
    return str(artifact["manifest_sha256"])[:20] if artifact["manifest_sha256"] else None


@FIELDS.on("Artifact", "createdAt")
def _created_at(_: Context, artifact: Row) -> str | None:
    return public_text(artifact["created_at"])


@FIELDS.on("Artifact", "updatedAt")
def _updated_at(_: Context, artifact: Row) -> str | None:
    return public_text(artifact["updated_at"])


@FIELDS.on("Artifact", "ttlDurationSeconds")
def _ttl_duration_seconds(_: Context, artifact: Row) -> int:
    return TTL_DISABLED if artifact["ttl_s"] is None else artifact["ttl_s"]


@FIELDS.on("Artifact", "ttlIsInherited")
def _ttl_is_inherited(_: Context, artifact: Row) -> bool:
    return artifact["ttl_s"] is None


@FIELDS.on("Artifact", "artifactSequence")
def _artifact_sequence(context: Context, artifact: Row) -> Node:
    return collection_node(get_collection(context.connection, artifact["sequence_id"]))


@FIELDS.on("Artifact", "artifactType")
def _artifact_type(context: Context, artifact: Row) -> Node:
    row = context.connection.execute(
        "SELECT * FROM artifact_types WHERE project_id = ? AND name = ?",
        (artifact["project_id"], artifact["type_name"]),
    ).fetchone()
    return Node("ArtifactType", row)


@FIELDS.on("Artifact", "tags")
def _tags(context: Context, artifact: Row) -> list[dict[str, object]]:
    return tag_nodes(artifact_tags(context.connection, artifact["id"]), "Tag")


@FIELDS.on("Artifact", "aliases")
def _aliases(context: Context, artifact: Row) -> list[Node]:
    named = artifact_aliases(context.connection, artifact["id"])
    numbered = link_numbers(context.connection, artifact["id"])
    return [alias_node(row) for row in [*named, *numbered]]


@FIELDS.on("Artifact", "artifactMemberships")
def _artifact_memberships(
    context: Context, artifact: Row, *, first: int | None = None, after: str | None = None
) -> Connection:
    rows = list_memberships(context.connection, artifact["id"])
    return Page.of(first, after, default=1000).cut([membership_node(row) for row in rows])


@FIELDS.on("Artifact", "currentManifest")
def _current_manifest(context: Context, artifact: Row) -> Mapping[str, object] | None:
    sha256 = artifact["manifest_sha256"]
    if sha256 is None:
        return None
    name = "wandb_manifest.json"
    url = context.download_url(sha256, name, "application/json")
    file = {"id": encode_id("File", name), "name": name, "directUrl": url}
    manifest_id = encode_id("ArtifactManifest", artifact["id"])
    return {"__typename": "ArtifactManifest", "id": manifest_id, "file": file}


@FIELDS.on("Artifact", "usedBy")
def _used_by(
    context: Context, artifact: Row, *, first: int | None = None, after: str | None = None
) -> Connection:
    rows = artifact_runs(context.connection, artifact["id"], Direction.INPUT)
    return Page.of(first, after, default=1000).cut([Node("Run", row) for row in rows])


@FIELDS.on("Artifact", "createdBy")
def _created_by(context: Context, artifact: Row) -> Node | None:
    row = context.connection.execute(
        "SELECT * FROM runs WHERE id = ?", (artifact["created_by_run_id"],)
    ).fetchone()
    return Node("Run", row) if row else None


@FIELDS.on("Run", "inputArtifacts")
def _input_artifacts(
    context: Context, run: Row, *, first: int | None = None, after: str | None = None
) -> Connection:
    rows = run_artifacts(context.connection, run["id"], Direction.INPUT)
    return Page.of(first, after).cut([artifact_node(row) for row in rows])


@FIELDS.on("Run", "outputArtifacts")
def _output_artifacts(
    context: Context, run: Row, *, first: int | None = None, after: str | None = None
) -> Connection:
    rows = run_artifacts(context.connection, run["id"], Direction.OUTPUT)
    return Page.of(first, after).cut([artifact_node(row) for row in rows])


@FIELDS.on("ArtifactCollectionMembership", "id")
def _membership_id(_: Context, membership: Row) -> str:
    return encode_id("ArtifactCollectionMembership", membership["id"])


@FIELDS.on("ArtifactCollectionMembership", "createdAt")
def _membership_created_at(_: Context, membership: Row) -> str | None:
    return public_text(membership["created_at"])


@FIELDS.on("ArtifactCollectionMembership", "aliases")
def _aliases_of_membership(context: Context, membership: Row) -> list[Node]:
    return [alias_node(row) for row in membership_aliases(context.connection, membership["id"])]


@FIELDS.on("ArtifactCollectionMembership", "artifactCollection")
def _collection_of_membership(context: Context, membership: Row) -> Node:
    return collection_node(get_collection(context.connection, membership["collection_id"]))


@FIELDS.on("ArtifactCollectionMembership", "artifact")
def _artifact_of_membership(context: Context, membership: Row) -> Node:
    return Node("Artifact", get_artifact(context.connection, membership["artifact_id"]))


@FIELDS.on("ArtifactAlias", "id")
def _alias_id(_: Context, alias: Row) -> str:
    return encode_id("ArtifactAlias", alias["id"])


@FIELDS.on("ArtifactAlias", "artifactCollection")
def _collection_of_alias(context: Context, alias: Row) -> Node:
    return collection_node(get_collection(context.connection, alias["collection_id"]))


@FIELDS.on("ArtifactType", "id")
def _type_id(_: Context, kind: Row) -> str:
    return encode_id("ArtifactType", kind["id"])


@FIELDS.on("ArtifactType", "project")
def _project_of_type(context: Context, kind: Row) -> Node:
    return project_node(context.connection, kind["project_id"])


@FIELDS.on("Artifact", "files")
def _files_of_artifact(
    context: Context,
    artifact: Row,
    *,
    names: list[str] | None = None,
    first: int | None = None,
    after: str | None = None,
) -> Connection:
    return _files(context, artifact["id"], names, Page.of(first, after))


@FIELDS.on("ArtifactCollectionMembership", "files")
def _files_of_membership(
    context: Context,
    membership: Row,
    *,
    names: list[str] | None = None,
    first: int | None = None,
    after: str | None = None,
) -> Connection:
    return _files(context, membership["artifact_id"], names, Page.of(first, after))


@FIELDS.on("Artifact", "filesByManifestEntries")
def _files_by_manifest_entries(
    context: Context,
    artifact: Row,
    *,
    entries: list[dict[str, str]] | None = None,
    storage_layout: str | None = None,
    manifest_version: str | None = None,
    storage_region: str | None = None,
    first: int | None = None,
    after: str | None = None,
) -> Connection:
    names = [entry["name"] for entry in entries or () if "name" in entry]
    return _files(context, artifact["id"], names, Page.of(first, after, default=10_000))


_WANTED_FILES = (
    "FROM artifact_entries WHERE artifact_id = ? AND sha256 IS NOT NULL"
    " AND (? IS NULL OR path IN (SELECT value FROM json_each(?)))"
)


def _files(context: Context, artifact_id: int, names: list[str] | None, page: Page) -> Connection:
    """Return stored files by path; references have no bytes here."""
    named = json.dumps(names) if names else None
    wanted = (artifact_id, named, named)
    total = context.connection.execute(f"SELECT count(*) {_WANTED_FILES}", wanted).fetchone()[0]
    rows = context.connection.execute(
        f"SELECT * {_WANTED_FILES} ORDER BY path LIMIT ? OFFSET ?",
        (*wanted, page.limit, page.offset),
    ).fetchall()
    stamp = get_artifact(context.connection, artifact_id)["updated_at"]
    return page.connection([_file(context, row, stamp) for row in rows], total=total)


def _file(context: Context, entry: Row, updated: str) -> dict[str, object]:
    path = entry["path"]
    url = context.download_url(entry["sha256"], path)
    is_md5 = entry["algorithm"] == DigestAlgorithm.MD5
    return {
        "__typename": "ArtifactFile",
        "id": encode_id("File", f"{entry['artifact_id']}:{path}"),
        "name": path,
        "displayName": path,
        "url": url,
        "directUrl": url,
        "sizeBytes": entry["size_bytes"],
        "storagePath": entry["sha256"],
        "mimetype": mimetypes.guess_type(path)[0],
        "updatedAt": public_text(updated),
        "digest": entry["digest"],
        "md5": entry["digest"] if is_md5 else None,
    }
