"""Join the parts of a large file into one blob, in flat memory and outside any transaction."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from registry.backend.artifacts.uploads import (
    CompleteParts,
    file_claims,
    find_parts,
    record_joined,
)
from registry.backend.service import Backend
from registry.backend.storage_routes import record_blob
from registry.errors import UsageError


class _OneAtATime:
    """Lets one thread work on a number while others that want the same one wait."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._busy: set[int | None] = set()

    @contextmanager
    def holding(self, number: int | None) -> Iterator[None]:
        with self._changed:
            while number in self._busy:
                self._changed.wait()
            self._busy.add(number)
        try:
            yield
        finally:
            with self._changed:
                self._busy.discard(number)
                self._changed.notify_all()


_JOINS = _OneAtATime()


def complete_multipart(
    backend: Backend, multipart_id: int | None, etags: Sequence[str]
) -> CompleteParts | None:
    """Join the parts of an upload; return what was joined, or None if it was before.

    A client that gave up waiting asks again; the second request waits for the first.

    Args:
        etags: what the client got for each part: its MD5 in hex, in order.

    Raises:
        UsageError: a part has not arrived, or the client's list differs from what arrived.
        IntegrityError: the whole has another digest than promised.
        StorageError: the disk is full.
    """
    with _JOINS.holding(multipart_id):
        with backend.database.read() as connection:
            upload = find_parts(connection, multipart_id)
        if upload is None:
            return None
        if etags and len(etags) != len(upload.parts):
            raise UsageError(f"{len(etags)} parts were named, {len(upload.parts)} arrived.")
        _join(backend, upload)
        return upload


def _join(backend: Backend, upload: CompleteParts) -> None:
    claims = {
        **file_claims(upload.artifact_id, upload.file),
        "multipart": upload.multipart_id,
    }
    with backend.blobs.writer() as writer:
        for sha256 in upload.parts:
            for chunk in backend.blobs.chunks(sha256):
                writer.write(chunk)
        blob = writer.finish()
        record_blob(backend, writer, blob, claims, record_joined)
