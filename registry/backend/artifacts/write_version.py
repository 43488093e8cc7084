"""GraphQL: log a version: create, announce files and manifests, join parts, commit."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from registry.backend.artifacts.collections import CollectionKind, ensure_collection, ensure_type
from registry.backend.artifacts.commit import (
    add_manifest,
    announce_manifest,
    commit_version,
    manifest_artifact,
)
from registry.backend.artifacts.lineage import Direction, record_lineage
from registry.backend.artifacts.manifests import DigestAlgorithm, ManifestKind, digest_hex
from registry.backend.artifacts.multipart import complete_multipart
from registry.backend.artifacts.nodes import (
    alias_names,
    artifact_node,
    artifact_of,
    made_project,
    tag_names,
)
from registry.backend.artifacts.uploads import (
    FILE_UPLOAD,
    MANIFEST_UPLOAD,
    PART_UPLOAD,
    FileDigest,
    PartPromise,
    abort_multipart,
    begin_multipart,
    claim_stored,
    file_claims,
    get_pending,
)
from registry.backend.artifacts.versions import (
    NewVersion,
    begin_version,
    delete_abandoned,
    get_artifact,
    version_blobs,
)
from registry.backend.context import Context
from registry.backend.graphql.errors import OperationError
from registry.backend.graphql.fields import FieldSet, Node
from registry.backend.identifiers import decode_id, encode_id
from registry.backend.runs.lookup import run_row

FIELDS = FieldSet()

Row = sqlite3.Row
Inputs = list[dict[str, Any]]

FIELDS.input_type(
    "CreateArtifactFileSpecInput",
    "artifactID",
    "name",
    "md5",
    "digest",
    "artifactManifestID",
    "uploadPartsInput",
)

_REGIONS = frozenset({"", "default"})


@FIELDS.mutation("createArtifactType")
def _create_artifact_type(
    context: Context,
    *,
    name: str,
    entity_name: str | None = None,
    project_name: str | None = None,
    description: str | None = None,
) -> Mapping[str, object]:
    project = made_project(context, entity_name, project_name)
    type_id = ensure_type(context.connection, project["id"], name, description)
    row = context.connection.execute(
        "SELECT * FROM artifact_types WHERE id = ?", (type_id,)
    ).fetchone()
    return {"artifactType": Node("ArtifactType", row)}


@FIELDS.mutation("createArtifact")
def _create_artifact(
    context: Context,
    *,
    artifact_type_name: str,
    digest: str,
    digest_algorithm: str = DigestAlgorithm.MD5,
    artifact_collection_name: str | None = None,
    artifact_collection_names: list[str] | None = None,
    entity_name: str | None = None,
    project_name: str | None = None,
    run_name: str | None = None,
    description: str | None = None,
    metadata: str | None = None,
    ttl_duration_seconds: int | None = None,
    history_step: int | None = None,
    aliases: Inputs | None = None,
    tags: Inputs | None = None,
    client_id: str | None = None,
    sequence_client_id: str | None = None,
    distributed_id: str | None = None,
    enable_digest_deduplication: bool = False,
    storage_region: str | None = None,
) -> Mapping[str, object]:
    if (storage_region or "") not in _REGIONS:
        raise OperationError(f"The storage region {storage_region!r} is not known here.")
    names = artifact_collection_names or [artifact_collection_name or ""]
    project = made_project(context, entity_name, project_name)
    run = run_row(context.connection, project["id"], run_name)
    sequence = ensure_collection(
        context.connection,
        project["id"],
        names[0],
        kind=CollectionKind.SEQUENCE,
        type_name=artifact_type_name,
        algorithm=DigestAlgorithm(digest_algorithm),
    )
    new = NewVersion(
        digest=digest,
        algorithm=DigestAlgorithm(digest_algorithm),
        run_id=run["id"] if run else None,
        description=description,
        metadata=metadata,
        ttl_s=ttl_duration_seconds,
        history_step=history_step,
        client_id=client_id,
        distributed_id=distributed_id or None,
        aliases=alias_names(aliases, names[0]),
        tags=tag_names(tags),
        deduplicate=bool(enable_digest_deduplication),
    )
    artifact_id = begin_version(context.connection, sequence["id"], new)
    if run:
        record_lineage(context.connection, run["id"], artifact_id, Direction.OUTPUT)
    _drop(context, delete_abandoned(context.connection, context.backend.settings.url_ttl_s))
    return {"artifact": artifact_node(get_artifact(context.connection, artifact_id))}


@FIELDS.mutation("createArtifactFiles")
def _create_artifact_files(
    context: Context,
    *,
    artifact_files: Inputs,
    storage_layout: str | None = None,
    digest_algorithm: str | None = None,
) -> Mapping[str, object]:
    algorithm = DigestAlgorithm(digest_algorithm or DigestAlgorithm.MD5)
    edges = [{"node": _created_file(context, spec, algorithm)} for spec in artifact_files]
    return {"files": {"edges": edges}}


def _created_file(
    context: Context, spec: Mapping[str, Any], algorithm: DigestAlgorithm
) -> dict[str, object]:
    """Return where one file goes; nowhere, if its bytes are stored already."""
    artifact_id = decode_id("Artifact", spec["artifactID"])
    artifact = get_pending(context.connection, artifact_id)
    file = FileDigest(algorithm, spec.get("digest") or spec["md5"])
    hexadecimal = digest_hex(file.digest)
    node: dict[str, object] = {
        "id": encode_id("File", f"{artifact['id']}:{spec['name']}"),
        "name": spec["name"],
        "displayName": spec["name"],
        "storagePath": f"{artifact['id']}/{hexadecimal}",
        "uploadUrl": None,
        "uploadHeaders": [],
        "uploadMultipartUrls": None,
        "artifact": artifact_node(artifact),
    }
    if claim_stored(context.connection, context.backend.blobs, artifact["id"], file):
        return node
    parts = spec.get("uploadPartsInput") or ()
    node["uploadUrl"] = context.upload_url(
        FILE_UPLOAD, file_claims(artifact["id"], file), spec["name"]
    )
    node["uploadHeaders"] = [f"Content-MD5:{spec['md5']}"] if spec.get("md5") else []
    if parts:
        node["uploadMultipartUrls"] = _multipart(context, artifact["id"], file, parts)
    return node


def _multipart(
    context: Context, artifact_id: int, file: FileDigest, parts: Inputs
) -> dict[str, object]:
    promises = [PartPromise(int(p["partNumber"]), str(p["hexMD5"]).lower()) for p in parts]
    with _dropping(context, artifact_id):
        multipart_id = begin_multipart(context.connection, artifact_id, file, promises)
    urls = [
        {
            "partNumber": part.number,
            "uploadUrl": context.upload_url(
                PART_UPLOAD,
                {"multipart": multipart_id, "part": part.number},
                f"part-{part.number}",
            ),
        }
        for part in promises
    ]
    return {"uploadID": encode_id("MultipartUpload", multipart_id), "uploadUrlParts": urls}


@FIELDS.mutation("completeMultipartUploadArtifact")
def _complete_multipart_upload(
    context: Context,
    *,
    complete_multipart_action: str,
    upload_id: str,
    artifact_id: str,
    storage_path: str,
    completed_parts: Inputs | None = None,
) -> Mapping[str, object]:
    multipart_id = decode_id("MultipartUpload", upload_id)
    if complete_multipart_action != "Complete":
        _drop(context, abort_multipart(context.connection, multipart_id))
        return {"digest": None}
    etags = [str(part["hexMD5"]).strip('"') for part in completed_parts or ()]
    joined = complete_multipart(context.backend, multipart_id, etags)
    if joined is not None:
        _drop(context, set(joined.parts))
        return {"digest": joined.file.digest}
    return {"digest": _stored_digest(context, artifact_id, storage_path)}


def _stored_digest(context: Context, artifact_id: str, storage_path: str) -> str:
    """Return the digest of a file that an earlier, equal request completed."""
    version = artifact_of(context, artifact_id)
    wanted = storage_path.rpartition("/")[2]
    rows = context.connection.execute(
        "SELECT digest FROM artifact_uploads WHERE artifact_id = :id UNION ALL"
        " SELECT digest FROM artifact_entries WHERE artifact_id = :id AND ref IS NULL",
        {"id": version["id"]},
    )
    for row in rows:
        if digest_hex(row["digest"]) == wanted:
            return str(row["digest"])
    raise OperationError("The upload is not known; ask for new URLs.")


@FIELDS.mutation("createArtifactManifest")
def _create_artifact_manifest(
    context: Context,
    *,
    artifact_id: str,
    name: str = "wandb_manifest.json",
    digest: str | None = None,
    base_artifact_id: str | None = None,
    entity_name: str | None = None,
    project_name: str | None = None,
    run_name: str | None = None,
    type: str = ManifestKind.FULL,
) -> Mapping[str, object]:
    artifact = get_pending(context.connection, decode_id("Artifact", artifact_id))
    before = version_blobs(context.connection, artifact["id"])
    manifest_id = add_manifest(
        context.connection,
        artifact["id"],
        ManifestKind(type),
        base_artifact_id=decode_id("Artifact", base_artifact_id),
        md5=digest,
    )
    _drop(context, before - version_blobs(context.connection, artifact["id"]))
    return {"artifactManifest": _manifest(context, manifest_id, name, digest)}


@FIELDS.mutation("updateArtifactManifest")
def _update_artifact_manifest(
    context: Context,
    *,
    artifact_manifest_id: str,
    digest: str | None = None,
    base_artifact_id: str | None = None,
) -> Mapping[str, object]:
    manifest_id = decode_id("ArtifactManifest", artifact_manifest_id) or 0
    with _dropping(context, manifest_artifact(context.connection, manifest_id)):
        announce_manifest(context.connection, manifest_id, digest or "")
    name = "wandb_manifest.json"
    return {"artifactManifest": _manifest(context, manifest_id, name, digest)}


def _manifest(
    context: Context, manifest_id: int, name: str, digest: str | None
) -> dict[str, object]:
    file = {
        "id": encode_id("File", f"manifest:{manifest_id}"),
        "name": name,
        "displayName": name,
        "uploadUrl": context.upload_url(MANIFEST_UPLOAD, {"manifest": manifest_id}, name),
        "uploadHeaders": [f"Content-MD5:{digest}"] if digest else [],
    }
    return {
        "__typename": "ArtifactManifest",
        "id": encode_id("ArtifactManifest", manifest_id),
        "file": file,
    }


@FIELDS.mutation("commitArtifact")
def _commit_artifact(context: Context, *, artifact_id: str) -> Mapping[str, object]:
    artifact = artifact_of(context, artifact_id)
    _drop(context, commit_version(context.connection, context.backend.blobs, artifact["id"]))
    return {"artifact": artifact_node(get_artifact(context.connection, artifact["id"]))}


@contextmanager
def _dropping(context: Context, artifact_id: int) -> Iterator[None]:
    """Collect, after the commit, the blobs that the version refers to before and not after."""
    before = version_blobs(context.connection, artifact_id)
    yield
    _drop(context, before - version_blobs(context.connection, artifact_id))


def _drop(context: Context, blobs: set[str]) -> None:
    for sha256 in blobs:
        context.drop_blob(sha256)
