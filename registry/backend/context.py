"""What a resolver may use while one operation runs."""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from registry.backend.service import Backend


class Context:
    """One operation: its transaction, the backend, and the address the client used.

    Queries see one snapshot; a mutation is one write transaction, committed when the operation
    succeeded. The transaction opens at the first use of `connection`, so slow work that needs
    none may be done before.

    Args:
        backend: the open backend.
        base_url: scheme and host by which the client reached it, without a slash at the end.
        writable: whether the operation is a mutation.
    """

    def __init__(self, backend: Backend, base_url: str, *, writable: bool) -> None:
        self.backend = backend
        self.base_url = base_url
        self._writable = writable
        self._stack = ExitStack()
        self._connection: sqlite3.Connection | None = None
        self._dropped: set[str] = set()

    def __enter__(self) -> Self:
        self._stack.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        self._connection = None
        if error is None and self._dropped:
            self.backend.collect_blobs(self._dropped)

    @property
    def connection(self) -> sqlite3.Connection:
        """The operation's transaction; opened at first use."""
        if self._connection is None:
            database = self.backend.database
            opened = database.write() if self._writable else database.read()
            self._connection = self._stack.enter_context(opened)
        return self._connection

    def drop_blob(self, sha256: str | None) -> None:
        """Collect the blob after the commit, if then nothing refers to it any more."""
        if sha256:
            self._dropped.add(sha256)

    def upload_url(self, kind: str, claims: dict[str, object], name: str) -> str:
        """Return a signed URL for one upload, handled by the `UploadKind` called `kind`."""
        return self.backend.signer.upload_url(self.base_url, kind, claims, name)

    def download_url(self, sha256: str, name: str, content_type: str | None = None) -> str:
        """Return a signed URL of a stored blob."""
        return self.backend.signer.download_url(self.base_url, sha256, name, content_type)
