"""Files that runs save: upload, listing, deletion."""

from __future__ import annotations

import base64
import mimetypes
import sqlite3
from collections.abc import Sequence

from registry.backend.blobs import Blob
from registry.backend.clock import now_text, public_text
from registry.backend.context import Context
from registry.backend.graphql.errors import OperationError
from registry.backend.graphql.fields import FieldSet, Node
from registry.backend.identifiers import decode_id, encode_id
from registry.backend.paging import Page
from registry.backend.parts import Claims
from registry.backend.runs.lookup import named_run
from registry.backend.runs.names import checked_file_name
from registry.errors import NotFoundError

fields = FieldSet()

UPLOAD_KIND = "run-file"
_ABSENT = "0" * 64


def record_run_file(connection: sqlite3.Connection, claims: Claims, blob: Blob) -> Sequence[str]:
    """Record an arrived file; the same name again replaces it, and the old blob is returned.

    Raises:
        NotFoundError: the run was deleted meanwhile.
    """
    run_id = claims.get("run")
    if connection.execute("SELECT 1 FROM runs WHERE id = ?", (run_id,)).fetchone() is None:
        raise NotFoundError("The run is gone.")
    replaced = connection.execute(
        "SELECT sha256 FROM run_files WHERE run_id = ? AND name = ?", (run_id, claims.get("name"))
    ).fetchall()
    connection.execute(
        "INSERT INTO run_files (run_id, name, sha256, md5, size_bytes, updated_at)"
        " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (run_id, name) DO UPDATE SET"
        " sha256 = excluded.sha256, md5 = excluded.md5, size_bytes = excluded.size_bytes,"
        " updated_at = excluded.updated_at",
        (run_id, claims.get("name"), blob.sha256, blob.md5, blob.size_bytes, now_text()),
    )
    return [row["sha256"] for row in replaced]


@fields.mutation("createRunFiles")
def create_run_files(
    context: Context,
    *,
    files: Sequence[str] = (),
    run_name: str | None = None,
    entity_name: str | None = None,
    project_name: str | None = None,
) -> dict[str, object]:
    """Return an upload URL for each file, in the order asked.

    Raises:
        OperationError: no such run, or a name that leaves the run's folder.
    """
    run = _run(context, entity_name, project_name, run_name)
    targets = [
        {"name": name, "uploadUrl": _upload_url(context, run["id"], checked_file_name(name))}
        for name in files
    ]
    return {"runID": encode_id("Run", run["id"]), "uploadHeaders": [], "files": targets}


@fields.mutation("markRunFilesUploaded")
def mark_run_files_uploaded(
    context: Context,
    *,
    files: Sequence[str] = (),
    run_name: str | None = None,
    entity_name: str | None = None,
    project_name: str | None = None,
) -> dict[str, object]:
    """Confirm uploads; they were recorded when their bytes arrived.

    Raises:
        OperationError: no such run.
    """
    del files
    _run(context, entity_name, project_name, run_name)
    return {"success": True}


@fields.mutation("deleteFiles")
def delete_files(
    context: Context, *, files: Sequence[str] = (), project_id: int | None = None
) -> dict[str, object]:
    """Delete files by id; those that are gone already are no error."""
    del project_id
    for public_id in files:
        file_id = decode_id("File", public_id)
        row = context.connection.execute(
            "DELETE FROM run_files WHERE id = ? RETURNING sha256", (file_id,)
        ).fetchone()
        context.drop_blob(row["sha256"] if row else None)
    return {"success": True}


@fields.on("Run", "fileCount")
def file_count(context: Context, run: sqlite3.Row) -> int:
    """Return the number of files."""
    count: int = context.connection.execute(
        "SELECT count(*) FROM run_files WHERE run_id = ?", (run["id"],)
    ).fetchone()[0]
    return count


@fields.on("Run", "files")
def files(
    context: Context,
    run: sqlite3.Row,
    *,
    names: Sequence[str] | None = None,
    pattern: str | None = None,
    first: int | None = None,
    after: str | None = None,
) -> dict[str, object]:
    """Return a page of files by name, or those asked for by name, in that order.

    A name that was asked for and is not there is a file of zero bytes without content: W&B does
    the same, and older SDKs ask so for upload URLs.
    """
    rows = context.connection.execute(
        "SELECT * FROM run_files WHERE run_id = ? AND (? IS NULL OR name LIKE ?) ORDER BY name",
        (run["id"], pattern, pattern),
    ).fetchall()
    if names:
        stored = {row["name"]: row for row in rows}
        rows = [stored.get(name) or _absent(run["id"], name) for name in names]
    nodes = [Node("File", row) for row in rows]
    return Page.of(first, after, default=10_000).cut(nodes, uploadHeaders=[])


def _absent(run_id: int, name: str) -> dict[str, object]:
    return {
        "id": 0,
        "run_id": run_id,
        "name": name,
        "sha256": _ABSENT,
        "md5": "",
        "size_bytes": 0,
        "updated_at": None,
    }


@fields.on("File", "id")
def file_id(_context: Context, file: sqlite3.Row) -> str:
    """Return the public id."""
    return encode_id("File", file["id"])


@fields.on("File", "url")
def url(context: Context, file: sqlite3.Row, *, upload: bool | None = None) -> str:
    """Return a signed URL to fetch the file from, or to send it to."""
    if upload:
        return _upload_url(context, file["run_id"], checked_file_name(file["name"]))
    return context.download_url(file["sha256"], file["name"])


@fields.on("File", "directUrl")
def direct_url(context: Context, file: sqlite3.Row) -> str:
    """Return a signed URL to fetch the file from."""
    return context.download_url(file["sha256"], file["name"])


@fields.on("File", "uploadUrl")
def upload_url(context: Context, file: sqlite3.Row) -> str:
    """Return a signed URL to send the file to."""
    return _upload_url(context, file["run_id"], checked_file_name(file["name"]))


@fields.on("File", "md5")
def md5(_context: Context, file: sqlite3.Row) -> str:
    """Return the MD5 in base64, as W&B writes it."""
    return base64.b64encode(bytes.fromhex(file["md5"])).decode("ascii")


@fields.on("File", "mimetype")
def mimetype(_context: Context, file: sqlite3.Row) -> str | None:
    """Return the type that the file's name suggests."""
    return mimetypes.guess_type(file["name"])[0]


@fields.on("File", "updatedAt")
def updated_at(_context: Context, file: sqlite3.Row) -> str | None:
    """Return when the file last arrived."""
    return public_text(file["updated_at"])


fields.columns("File", {"name": "name", "sizeBytes": "size_bytes", "displayName": "name"})


def _upload_url(context: Context, run_id: int, name: str) -> str:
    return context.upload_url(UPLOAD_KIND, {"run": run_id, "name": name}, name)


def _run(context: Context, entity: str | None, project: str | None, run: str | None) -> sqlite3.Row:
    default = context.backend.settings.entity
    row = named_run(context.connection, entity, project, run, default)
    if row is None:
        raise OperationError(f"No run {run!r} in project {project!r}.")
    return row
