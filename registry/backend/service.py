"""The open backend: every adapter in one place, passed to whoever needs it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from registry.backend.auth import Credentials, load_credentials
from registry.backend.blobs import BlobStore, storage_errors
from registry.backend.database import Database
from registry.backend.graphql.executor import Executor
from registry.backend.graphql.fields import merge
from registry.backend.graphql.unknown import UnknownNames
from registry.backend.parts import Part, RecordUpload
from registry.backend.replaced import ReplacedBlobs
from registry.backend.settings import BackendSettings
from registry.backend.signing import UrlSigner
from registry.errors import StorageError, UnavailableError

DATABASE_FILE = "backend.sqlite3"
CREDENTIALS_FILE = "credentials.json"
LOCK_FILE = "server.lock"


@dataclass(frozen=True, slots=True)
class Backend:
    """An open data folder and what works on it."""

    settings: BackendSettings
    credentials: Credentials
    database: Database
    blobs: BlobStore
    signer: UrlSigner
    replaced: ReplacedBlobs
    executor: Executor
    unknown: UnknownNames
    parts: Sequence[Part]

    def upload_kind(self, kind: object) -> RecordUpload | None:
        """Return what records uploads of `kind`, or None if no part knows it."""
        for part in self.parts:
            if isinstance(kind, str) and kind in part.upload_kinds:
                return part.upload_kinds[kind]
        return None

    def collect_blobs(self, candidates: Iterable[str] | None = None) -> int:
        """Delete stored blobs (all, or among `candidates`) to which nothing refers."""
        queries = [query for part in self.parts for query in part.blob_references]
        with self.database.write() as connection:
            return self.blobs.collect(connection, queries, candidates)


@contextmanager
def open_backend(settings: BackendSettings, parts: Sequence[Part]) -> Iterator[Backend]:
    """Open the data folder, recover what a killed process left, and close it at the end.

    Raises:
        UnavailableError: another process serves this folder.
        StorageError: the folder, database or credentials cannot be used.
    """
    data_dir = settings.data_dir
    with storage_errors(data_dir):
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _exclusive(data_dir / LOCK_FILE):
        credentials = load_credentials(data_dir / CREDENTIALS_FILE)
        database = Database(
            data_dir / DATABASE_FILE, [step for part in parts for step in part.migrations]
        )
        blobs = BlobStore(data_dir / "blobs")
        unknown = UnknownNames()
        backend = Backend(
            settings=settings,
            credentials=credentials,
            database=database,
            blobs=blobs,
            signer=UrlSigner(credentials.signing_secret, settings.url_ttl_s),
            replaced=ReplacedBlobs(settings.replaced_grace_s),
            executor=Executor(
                merge(fields for part in parts for fields in part.field_sets), unknown
            ),
            unknown=unknown,
            parts=tuple(parts),
        )
        blobs.open()
        database.open()
        try:
            backend.collect_blobs()
            yield backend
        finally:
            database.close()


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StorageError(f"The data folder cannot be written: {error.strerror}.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise UnavailableError(
            f"Another backend serves {path.parent}.",
            hint="Stop it, or choose another folder with --data.",
        ) from error
    finally:
        os.close(descriptor)
