"""Look into a data folder from outside: do database and blobs open and agree?"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import xxhash

from registry.backend.parts import default_parts

FILES_OF_A_DATA_FOLDER = {
    "backend.sqlite3",
    "backend.sqlite3-shm",
    "backend.sqlite3-wal",
    "blobs",
    "credentials.json",
    "server.json",
    "server.lock",
}


@contextmanager
def database_copy(data_dir: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a copy, so that looking recovers nothing in the original."""
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("", "-wal"):
            source = data_dir / f"backend.sqlite3{suffix}"
            if source.exists():
                shutil.copy(source, Path(folder) / source.name)
        with closing(sqlite3.connect(Path(folder) / "backend.sqlite3")) as connection:
            connection.row_factory = sqlite3.Row
            yield connection


def audit(data_dir: Path, *, settled: bool = True) -> None:
    """Fail unless everything agrees; `settled`: nothing is in progress, so nothing is left over."""
    with database_copy(data_dir) as connection:
        assert [row[0] for row in connection.execute("PRAGMA integrity_check")] == ["ok"]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        referenced = _referenced(connection)
        stored = stored_blobs(data_dir)
        assert referenced <= stored.keys(), "a row refers to a blob that is not stored"
        for sha256 in referenced:
            _check_blob(stored[sha256])
        _check_run_files(connection, stored)
        _check_versions(connection, stored)
        _check_aliases(connection)
    if settled:
        assert list((data_dir / "blobs" / "incoming").iterdir()) == []
        assert stored.keys() == referenced, "blobs without a reference were left"
        assert {entry.name for entry in data_dir.iterdir()} - FILES_OF_A_DATA_FOLDER == set()


def stored_blobs(data_dir: Path) -> dict[str, Path]:
    """Every blob by its name; nothing else may lie in the folder."""
    found = {}
    for folder in (data_dir / "blobs").iterdir():
        if folder.name == "incoming":
            continue
        for entry in folder.iterdir():
            assert entry.name.startswith(folder.name)
            assert len(entry.name) == 64
            found[entry.name] = entry
    return found


def _referenced(connection: sqlite3.Connection) -> set[str]:
    queries = [query for part in default_parts() for query in part.blob_references]
    return {row[0] for query in queries for row in connection.execute(query) if row[0] is not None}


def _check_blob(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    with path.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == path.name


def _check_run_files(connection: sqlite3.Connection, stored: dict[str, Path]) -> None:
    for row in connection.execute("SELECT * FROM run_files"):
        content = stored[row["sha256"]].read_bytes()
        assert len(content) == row["size_bytes"]
        assert hashlib.md5(content).hexdigest() == row["md5"]


def _check_versions(connection: sqlite3.Connection, stored: dict[str, Path]) -> None:
    for version in connection.execute("SELECT * FROM artifacts WHERE state = 'COMMITTED'"):
        manifest = json.loads(stored[version["manifest_sha256"]].read_bytes())
        entries = connection.execute(
            "SELECT * FROM artifact_entries WHERE artifact_id = ?", (version["id"],)
        ).fetchall()
        assert {row["path"]: row["digest"] for row in entries} == {
            path: entry["digest"] for path, entry in manifest["contents"].items()
        }
        assert version["file_count"] == len(entries)
        for row in entries:
            if row["ref"] is None:
                _check_entry(row, stored[row["sha256"]])


def _check_entry(row: sqlite3.Row, path: Path) -> None:
    hasher = xxhash.xxh128() if row["algorithm"] == "MANIFEST_XXH128" else hashlib.md5()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            hasher.update(chunk)
    assert base64.b64encode(hasher.digest()).decode() == row["digest"]
    assert path.stat().st_size == row["size_bytes"]


def _check_aliases(connection: sqlite3.Connection) -> None:
    """Each collection with members has `latest` on one, and numbers count up without reuse."""
    for collection in connection.execute("SELECT * FROM artifact_collections"):
        members = connection.execute(
            "SELECT * FROM artifact_memberships WHERE collection_id = ?", (collection["id"],)
        ).fetchall()
        latest = connection.execute(
            "SELECT membership_id FROM artifact_aliases WHERE collection_id = ?"
            " AND alias = 'latest'",
            (collection["id"],),
        ).fetchall()
        assert len(latest) <= 1
        assert all(row["version_index"] < collection["next_version"] for row in members)
        pending = connection.execute(
            "SELECT count(*) FROM artifact_memberships JOIN artifacts ON artifacts.id ="
            " artifact_id WHERE collection_id = ? AND state != 'COMMITTED'",
            (collection["id"],),
        ).fetchone()[0]
        assert pending == 0
