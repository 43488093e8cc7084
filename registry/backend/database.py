"""The SQLite database: connections, transactions, migrations.

Write-ahead log with full synchronisation: what was acknowledged survives `kill -9` and power
loss. Writers are serialised by `BEGIN IMMEDIATE`, which also holds across processes. All calls
block; callers run them in threads, never on the event loop.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from registry.errors import StorageError

BUSY_TIMEOUT_S = 30.0
_POOL_SIZE = 8


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema; `name` is unique and never reused, order is that of the list."""

    name: str
    sql: str


class Database:
    """One database file, safe for many threads and processes.

    Args:
        path: the database file; its folder must exist.
        migrations: the schema, oldest step first.
    """

    def __init__(self, path: Path, migrations: Sequence[Migration]) -> None:
        self._path = path
        self._migrations = tuple(migrations)
        self._idle: list[sqlite3.Connection] = []
        self._idle_lock = threading.Lock()
        self._write_lock = threading.Lock()
        self._closed = True

    def open(self) -> None:
        """Create or recover the file and apply migrations that it lacks.

        Raises:
            StorageError: the file cannot be read or written, or is no database.
        """
        self._closed = False
        try:
            self._path.touch(mode=0o600)
            with self.write() as connection:
                _migrate(connection, self._migrations)
        except (sqlite3.Error, OSError) as error:
            raise StorageError(
                f"The backend's database {self._path} cannot be opened: {error}.",
                hint="Check free space and permissions of the data folder.",
            ) from error

    def close(self) -> None:
        """Close idle connections; transactions in progress close theirs when they end."""
        with self._idle_lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Give one consistent snapshot of the database; writing through it is an error."""
        with self._borrowed() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.rollback()

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Give the only write transaction; commits at the end, rolls back on any exception."""
        with self._write_lock, self._borrowed() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.rollback()

    @contextmanager
    def _borrowed(self) -> Iterator[sqlite3.Connection]:
        with self._idle_lock:
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            connection = _connect(self._path)
        try:
            yield connection
        except sqlite3.DatabaseError:
            connection.close()
            raise
        except BaseException:
            self._give_back(connection)
            raise
        else:
            self._give_back(connection)

    def _give_back(self, connection: sqlite3.Connection) -> None:
        with self._idle_lock:
            if not self._closed and len(self._idle) < _POOL_SIZE:
                self._idle.append(connection)
                return
        connection.close()


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    connection.row_factory = sqlite3.Row
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _migrate(connection: sqlite3.Connection, migrations: Sequence[Migration]) -> None:
    connection.execute("CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY) STRICT")
    applied = {row["name"] for row in connection.execute("SELECT name FROM migrations")}
    for migration in migrations:
        if migration.name in applied:
            continue
        # Statement by statement: `executescript` would commit the surrounding transaction.
        for statement in _statements(migration.sql):
            connection.execute(statement)
        connection.execute("INSERT INTO migrations VALUES (?)", (migration.name,))


def _statements(sql: str) -> Iterator[str]:
    buffer = ""
    for line in sql.splitlines(keepends=True):
        buffer += line
        if sqlite3.complete_statement(buffer):
            yield buffer
            buffer = ""
    if buffer.strip():
        yield buffer
