"""Request and response bodies of any size in flat memory, off the event loop."""

from __future__ import annotations

import asyncio
import os
import sys
import zlib
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import TypeVar

from litestar.exceptions import ClientException, HTTPException

from registry.backend.blobs import CHUNK_BYTES
from registry.backend.responses import AnyRequest
from registry.backend.zero_copy import FileSender

_T = TypeVar("_T")

_INFLATE_BOTH = 32 + zlib.MAX_WBITS


class TooLargeError(HTTPException):
    """The body exceeds its limit."""

    status_code = 413


@asynccontextmanager
async def in_threads(manager: AbstractContextManager[_T]) -> AsyncIterator[_T]:
    """Enter and leave a blocking context manager off the event loop."""
    value = await asyncio.to_thread(manager.__enter__)
    try:
        yield value
    finally:
        await asyncio.to_thread(manager.__exit__, *sys.exc_info())


async def chunks_of(request: AnyRequest) -> AsyncIterator[bytes]:
    """Yield the body in pieces of about `CHUNK_BYTES`, fewer hops than the socket's own."""
    buffer = bytearray()
    async for piece in request.stream():
        buffer += piece
        if len(buffer) >= CHUNK_BYTES:
            yield bytes(buffer)
            buffer.clear()
    if buffer:
        yield bytes(buffer)


async def read_body(request: AnyRequest, limit_bytes: int) -> bytes:
    """Return the whole body, inflated if it is gzip or deflate.

    Raises:
        TooLargeError: more than `limit_bytes`, compressed or inflated.
        ClientException: the compression is broken.
    """
    received = bytearray()
    async for chunk in chunks_of(request):
        received += chunk
        if len(received) > limit_bytes:
            raise TooLargeError("The body is too large.")
    if request.headers.get("content-encoding", "identity").lower() not in ("gzip", "deflate"):
        return bytes(received)
    return await asyncio.to_thread(_inflate, bytes(received), limit_bytes)


def _inflate(body: bytes, limit_bytes: int) -> bytes:
    inflater = zlib.decompressobj(_INFLATE_BOTH)
    try:
        inflated = inflater.decompress(body, limit_bytes + 1)
    except zlib.error as error:
        raise ClientException("The body is not what its Content-Encoding says.") from error
    if len(inflated) > limit_bytes:
        raise TooLargeError("The body is too large.")
    if not inflater.eof:
        raise ClientException("The compressed body is cut off.")
    return inflated


async def file_chunks(
    path: Path, start: int, length: int, sender: FileSender | None = None
) -> AsyncIterator[bytes]:
    """Yield `length` bytes of a file from `start`; reads happen in threads.

    What `sender` can send by itself, once the answer's head is sent, is not yielded.
    """
    descriptor = await _opened(path)
    try:
        if sender is not None and length >= CHUNK_BYTES:
            sent = await sender.send(descriptor, start, length)
            start, length = start + sent, length - sent
        while length > 0:
            wanted = min(CHUNK_BYTES, length)
            chunk = await asyncio.to_thread(os.pread, descriptor, wanted, start)
            if not chunk:
                return
            start += len(chunk)
            length -= len(chunk)
            yield chunk
    finally:
        os.close(descriptor)


async def _opened(path: Path) -> int:
    """Open a file in a thread; if the client hangs up meanwhile, it is closed again."""
    opening = asyncio.ensure_future(asyncio.to_thread(os.open, path, os.O_RDONLY))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close)
        raise


def _close(opening: asyncio.Future[int]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        os.close(opening.result())


def parse_range(header: str | None, size_bytes: int) -> tuple[int, int] | None:
    """Return start and length that a single-range `Range` header asks for, None for the whole.

    Raises:
        HTTPException: 416, the range lies outside.
    """
    unit, _, text = (header or "").partition("=")
    first, dash, last = text.strip().partition("-")
    if unit.strip() != "bytes" or not dash or not (first + last).isdigit():
        return None
    if first:
        start, end = int(first), min(int(last), size_bytes - 1) if last else size_bytes - 1
    else:
        start, end = max(0, size_bytes - int(last)), size_bytes - 1
    if start > end or start >= size_bytes:
        raise HTTPException(
            "The range lies outside.",
            status_code=416,
            headers={"Content-Range": f"bytes */{size_bytes}"},
        )
    return start, end - start + 1
