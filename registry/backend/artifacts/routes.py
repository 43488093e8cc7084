"""`/artifactsV2/…` and `/artifacts/…`: fetch one file by its digest, with the API key.

The SDK asks here when a signed URL has expired and when a single entry is downloaded.
"""

from __future__ import annotations

import asyncio
import sqlite3
from urllib.parse import unquote

from litestar import get
from litestar.response import Stream

from registry.backend.artifacts.collections import find_collection
from registry.backend.artifacts.manifests import digest_base64
from registry.backend.responses import AnyRequest, backend_of, path_parameter, require_key
from registry.backend.runs.lookup import project_row
from registry.backend.service import Backend
from registry.backend.storage_routes import send_blob
from registry.errors import NotFoundError


@get("/artifactsV2/{rest:path}", guards=[require_key])
async def file_by_digest(request: AnyRequest) -> Stream:
    """Send a file: `region/entity/project/collection[/version id]/birth id/digest/name`."""
    parts = path_parameter(request, "rest").strip("/").split("/")
    if len(parts) < 6:
        raise NotFoundError("Not an artifact file's address.")
    entity, project, collection = (unquote(part) for part in parts[1:4])
    backend = backend_of(request)
    sha256 = await asyncio.to_thread(
        _find_in_collection, backend, entity, project, collection, parts[-2]
    )
    return send_blob(request, backend.blobs.path(sha256), parts[-1], None)


@get("/artifacts/{entity:str}/{hexadecimal:str}", guards=[require_key])
async def file_of_entity(request: AnyRequest) -> Stream:
    """Send a file of one of the entity's projects by its digest alone (the old layout)."""
    backend = backend_of(request)
    entity = path_parameter(request, "entity")
    hexadecimal = path_parameter(request, "hexadecimal")
    sha256 = await asyncio.to_thread(_find_in_entity, backend, entity, hexadecimal)
    return send_blob(request, backend.blobs.path(sha256), hexadecimal, None)


def _find_in_collection(
    backend: Backend, entity: str, project_name: str, collection_name: str, hexadecimal: str
) -> str:
    with backend.database.read() as connection:
        project = project_row(connection, entity, project_name, entity)
        collection = (
            find_collection(connection, project["id"], collection_name) if project else None
        )
        row = connection.execute(
            "SELECT sha256 FROM artifact_entries JOIN artifact_memberships"
            " USING (artifact_id) WHERE digest = ? AND sha256 IS NOT NULL"
            " AND collection_id = ? LIMIT 1",
            (_digest(hexadecimal), collection["id"] if collection else None),
        ).fetchone()
    return _sha256(row)


def _find_in_entity(backend: Backend, entity: str, hexadecimal: str) -> str:
    with backend.database.read() as connection:
        row = connection.execute(
            "SELECT sha256 FROM artifact_entries JOIN artifact_details"
            " ON artifact_details.id = artifact_id"
            " JOIN projects ON projects.id = project_id WHERE artifact_entries.digest = ?"
            " AND sha256 IS NOT NULL AND entity = ? LIMIT 1",
            (_digest(hexadecimal), entity),
        ).fetchone()
    return _sha256(row)


def _digest(hexadecimal: str) -> str:
    try:
        return digest_base64(hexadecimal)
    except ValueError as error:
        raise NotFoundError("Not a digest.") from error


def _sha256(row: sqlite3.Row | None) -> str:
    if row is None:
        raise NotFoundError("There is no such artifact file.")
    return str(row["sha256"])
