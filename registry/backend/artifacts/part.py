"""The artifact half as the frame sees it."""

from __future__ import annotations

import sqlite3

from registry.backend.artifacts import (
    change,
    read_artifact,
    read_collection,
    read_registry,
    write_version,
)
from registry.backend.artifacts.collections import list_collections
from registry.backend.artifacts.routes import file_by_digest, file_of_entity
from registry.backend.artifacts.schema import BLOB_REFERENCES, MIGRATIONS
from registry.backend.artifacts.uploads import UPLOAD_KINDS
from registry.backend.artifacts.versions import delete_collection, delete_version
from registry.backend.context import Context
from registry.backend.parts import Part


def delete_with_run(context: Context, run: sqlite3.Row, delete_artifacts: bool) -> None:
    """Let go of a run that is deleted; delete the versions that it made, if asked to."""
    if not delete_artifacts:
        return
    rows = context.connection.execute(
        "SELECT id FROM artifacts WHERE created_by_run_id = ?", (run["id"],)
    ).fetchall()
    for row in rows:
        for sha256 in delete_version(context.connection, row["id"], delete_aliases=True):
            context.drop_blob(sha256)


def delete_with_project(context: Context, project: sqlite3.Row) -> None:
    """Delete a project's collections, whose versions others may link to."""
    for row in list_collections(context.connection, project["id"]):
        for sha256 in delete_collection(context.connection, row["id"]):
            context.drop_blob(sha256)


ARTIFACTS = Part(
    name="artifacts",
    migrations=MIGRATIONS,
    field_sets=(
        read_artifact.FIELDS,
        read_collection.FIELDS,
        read_registry.FIELDS,
        write_version.FIELDS,
        change.FIELDS,
    ),
    blob_references=BLOB_REFERENCES,
    upload_kinds=UPLOAD_KINDS,
    routes=(file_by_digest, file_of_entity),
    features=(
        "ARTIFACT_TAGS",
        "ARTIFACT_REGISTRY_SEARCH",
        "ARTIFACT_COLLECTION_MEMBERSHIP_FILES",
        "ARTIFACT_COLLECTION_MEMBERSHIP_FILE_DOWNLOAD_HANDLER",
        "ARTIFACT_COLLECTIONS_FILTERING_SORTING",
        "ARTIFACT_DIGEST_ALGORITHM",
        "ARTIFACT_MEMBERSHIP_IN_LINK_ARTIFACT_RESPONSE",
        "ARTIFACT_V2_DOWNLOAD_HANDLER_SUPPORTS_ARTIFACT_ID",
        "INCLUDE_ARTIFACT_TYPES_IN_REGISTRY_CREATION",
        "PROJECT_ARTIFACT_COLLECTION_MEMBERSHIP",
        "TOTAL_COUNT_IN_FILE_CONNECTION",
        "USE_ARTIFACT_WITH_ENTITY_AND_PROJECT_INFORMATION",
    ),
    run_delete_hooks=(delete_with_run,),
    project_delete_hooks=(delete_with_project,),
    project_upsert_hooks=(read_registry.change_upserted,),
)
