"""Signed uploads and downloads. The URL is the right; no other authentication is asked."""

from __future__ import annotations

import asyncio
import base64
import binascii
import mimetypes
from pathlib import Path
from urllib.parse import quote

from litestar import Response, get, put
from litestar.exceptions import ClientException, NotFoundException
from litestar.response import Stream

from registry.backend.blobs import Blob, BlobWriter
from registry.backend.parts import Claims, RecordUpload
from registry.backend.responses import AnyRequest, backend_of, path_parameter
from registry.backend.service import Backend
from registry.backend.streams import chunks_of, file_chunks, in_threads, parse_range
from registry.backend.zero_copy import sender_of
from registry.errors import AuthError


@put(["/storage/upload/{token:str}", "/storage/upload/{token:str}/{name:path}"], status_code=200)
async def upload(request: AnyRequest) -> Response[None]:
    """Store one body; answered after it is on disk and recorded. `ETag` is its MD5."""
    backend = backend_of(request)
    claims = backend.signer.verify("put", path_parameter(request, "token"))
    record = backend.upload_kind(claims.get("kind"))
    if record is None:
        raise AuthError("The URL is for a kind of upload that this server does not know.")
    blob = await _receive(request, backend, claims, record)
    return Response(None, status_code=200, headers={"ETag": f'"{blob.md5}"'})


async def _receive(
    request: AnyRequest, backend: Backend, claims: Claims, record: RecordUpload
) -> Blob:
    size_bytes = _declared_size(request)
    md5 = _declared_md5(request)
    async with in_threads(backend.blobs.writer()) as writer:
        async for chunk in chunks_of(request):
            await asyncio.to_thread(writer.write, chunk)

        def keep() -> Blob:
            blob = writer.finish(size_bytes=size_bytes, md5=md5)
            record_blob(backend, writer, blob, claims, record)
            return blob

        return await asyncio.to_thread(keep)


def record_blob(
    backend: Backend, writer: BlobWriter, blob: Blob, claims: Claims, record: RecordUpload
) -> None:
    """Publish a finished blob and record who refers to it, in one transaction.

    If that fails, also after the blob took its place, nothing is left of it.
    """
    try:
        with backend.database.write() as connection:
            replaced = tuple(record(connection, claims, blob) or ())
            backend.blobs.publish(writer, blob)
    except BaseException:
        backend.collect_blobs([blob.sha256])
        raise
    backend.replaced.add(replaced)
    if due := backend.replaced.take_due():
        backend.collect_blobs(due)


@get(["/storage/blob/{token:str}", "/storage/blob/{token:str}/{name:path}"])
async def download(request: AnyRequest) -> Stream:
    """Send a blob, whole or the range that was asked for."""
    backend = backend_of(request)
    claims = backend.signer.verify("get", path_parameter(request, "token"))
    path = backend.blobs.path(str(claims.get("sha256")))
    kind = claims.get("type")
    name = path_parameter(request, "name")
    return send_blob(request, path, name, str(kind) if kind else None)


def send_blob(request: AnyRequest, path: Path, name: str, content_type: str | None) -> Stream:
    """Return the answer that streams the file at `path`; honours `Range`.

    Raises:
        NotFoundException: the blob is gone.
    """
    try:
        size_bytes = path.stat().st_size
    except FileNotFoundError as error:
        raise NotFoundException("The file is gone.") from error
    wanted = parse_range(request.headers.get("range"), size_bytes)
    start, length = wanted or (0, size_bytes)
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Length": str(length),
        "ETag": f'"{path.name}"',
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(Path(name).name)}",
        # Uploaded bytes are never run as a page of this origin.
        "Content-Security-Policy": "sandbox",
        "X-Content-Type-Options": "nosniff",
    }
    if wanted:
        headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{size_bytes}"
    return Stream(
        file_chunks(path, start, length, sender_of(request.scope)),
        status_code=206 if wanted else 200,
        headers=headers,
        media_type=content_type or mimetypes.guess_type(name)[0] or "application/octet-stream",
    )


def _declared_size(request: AnyRequest) -> int | None:
    text = request.headers.get("content-length")
    return int(text) if text and text.isascii() and text.isdigit() else None


def _declared_md5(request: AnyRequest) -> str | None:
    text = request.headers.get("content-md5")
    if not text:
        return None
    try:
        return base64.b64decode(text, validate=True).hex()
    except binascii.Error as error:
        raise ClientException("Content-MD5 is not base64.") from error
