"""Make a pending version final: merge manifests, check every file, number it, move aliases."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable

from registry.backend.artifacts.aliases import add_membership, set_aliases
from registry.backend.artifacts.manifests import (
    DigestAlgorithm,
    Entry,
    Manifest,
    ManifestKind,
    logical_digest,
    merge,
    parse_manifest,
    render,
)
from registry.backend.artifacts.versions import find_artifact, get_artifact, version_blobs
from registry.backend.blobs import BlobStore
from registry.backend.clock import now_text
from registry.errors import IntegrityError, UsageError

_INSERT_ENTRY = "INSERT INTO artifact_entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"


def add_manifest(
    connection: sqlite3.Connection,
    artifact_id: int,
    kind: ManifestKind,
    *,
    base_artifact_id: int | None,
    md5: str | None,
) -> int:
    """Announce a manifest of a pending version; return its id. `md5` is base64.

    A full manifest takes the place of those that were announced before.
    """
    if kind is ManifestKind.FULL:
        connection.execute("DELETE FROM artifact_manifests WHERE artifact_id = ?", (artifact_id,))
    cursor = connection.execute(
        "INSERT INTO artifact_manifests (artifact_id, base_artifact_id, kind, md5)"
        " VALUES (?, ?, ?, ?)",
        (artifact_id, base_artifact_id, kind, md5 or None),
    )
    return int(cursor.lastrowid or 0)


def announce_manifest(connection: sqlite3.Connection, manifest_id: int, md5: str) -> None:
    """Say which bytes (MD5 in base64) will arrive as a manifest."""
    connection.execute(
        "UPDATE artifact_manifests SET md5 = ?, sha256 = NULL WHERE id = ?", (md5, manifest_id)
    )


def manifest_artifact(connection: sqlite3.Connection, manifest_id: int | None) -> int:
    """Return the id of the pending version to which a manifest belongs.

    Raises:
        UsageError: there is no such manifest, or its version is committed.
    """
    row = connection.execute(
        "SELECT artifact_id FROM artifact_manifests WHERE id = ?", (manifest_id,)
    ).fetchone()
    if row is None:
        raise UsageError("The manifest is of a version that is gone or committed.")
    return int(row["artifact_id"])


def commit_version(connection: sqlite3.Connection, blobs: BlobStore, artifact_id: int) -> set[str]:
    """Make a version final; one that is final already is left as it is.

    Returns:
        Blobs (SHA-256) of manifests and uploads to which it refers no longer.

    Raises:
        IntegrityError: a file was not uploaded, or differs from its manifest.
        UsageError: no manifest was uploaded, or the base version is gone.
    """
    artifact = get_artifact(connection, artifact_id)
    if artifact["state"] == "COMMITTED":
        return set()
    rows = connection.execute(
        "SELECT * FROM artifact_manifests WHERE artifact_id = ? AND sha256 IS NOT NULL ORDER BY id",
        (artifact_id,),
    ).fetchall()
    if not rows:
        raise UsageError("The version has no manifest; upload one before it is committed.")
    before = version_blobs(connection, artifact_id)
    manifest = _merged(connection, blobs, rows)
    entries = list(manifest.entries.values())
    sources = _sources(connection, blobs, artifact_id, entries)
    connection.executemany(
        _INSERT_ENTRY, [_entry_row(artifact_id, entry, sources) for entry in entries]
    )
    single = len(rows) == 1 and rows[0]["kind"] != ManifestKind.INCREMENTAL
    manifest_sha256 = rows[0]["sha256"] if single else _store(blobs, render(manifest))
    _finalise(connection, artifact, manifest, manifest_sha256)
    return before - version_blobs(connection, artifact_id)


def _merged(
    connection: sqlite3.Connection, blobs: BlobStore, rows: Iterable[sqlite3.Row]
) -> Manifest:
    rows = list(rows)
    parts = [parse_manifest(blobs.read(row["sha256"])) for row in rows]
    bases = {row["base_artifact_id"] for row in rows if row["kind"] == ManifestKind.INCREMENTAL}
    bases.discard(None)
    if not bases:
        return merge(None, parts)
    base = find_artifact(connection, min(bases))
    if base is None or base["state"] != "COMMITTED":
        raise UsageError("The version to which this one adds was deleted meanwhile.")
    return merge(load_manifest(connection, base["id"], like=parts[0]), parts)


def load_manifest(connection: sqlite3.Connection, artifact_id: int, *, like: Manifest) -> Manifest:
    """Return the entries of a committed version, with the storage policy of `like`."""
    rows = connection.execute(
        "SELECT * FROM artifact_entries WHERE artifact_id = ? ORDER BY path", (artifact_id,)
    )
    entries = {
        row["path"]: Entry(
            path=row["path"],
            digest=row["digest"],
            size_bytes=row["size_bytes"],
            ref=row["ref"],
            birth_artifact_id=row["birth_artifact_id"],
            extra=json.loads(row["extra"]),
        )
        for row in rows
    }
    return Manifest(entries, like.storage_policy, like.storage_policy_config)


_Sources = dict[tuple[str, str], tuple[str, int]]


def _sources(
    connection: sqlite3.Connection, blobs: BlobStore, artifact_id: int, entries: Iterable[Entry]
) -> _Sources:
    """Return blob and size by algorithm and digest for every stored file of `entries`."""
    uploads = connection.execute(
        "SELECT * FROM artifact_uploads WHERE artifact_id = ?", (artifact_id,)
    )
    found: _Sources = {
        (row["algorithm"], row["digest"]): (row["sha256"], row["size_bytes"]) for row in uploads
    }
    checked: set[str] = set()
    for entry in entries:
        if entry.ref is not None:
            continue
        key = (entry.algorithm.value, entry.digest)
        source = found.get(key) or _elsewhere(connection, entry)
        found[key] = source
        if entry.size_bytes not in (None, source[1]):
            raise IntegrityError(
                f"{entry.path!r} has {source[1]} bytes, its manifest says {entry.size_bytes}."
            )
        if source[0] not in checked and not blobs.exists(source[0]):
            raise IntegrityError(f"The bytes of {entry.path!r} are lost; upload it again.")
        checked.add(source[0])
    return found


def _elsewhere(connection: sqlite3.Connection, entry: Entry) -> tuple[str, int]:
    row = connection.execute(
        "SELECT sha256, size_bytes FROM artifact_entries WHERE digest = ? AND algorithm = ?"
        " AND sha256 IS NOT NULL LIMIT 1",
        (entry.digest, entry.algorithm),
    ).fetchone()
    if row is None:
        raise IntegrityError(f"{entry.path!r} is in the manifest but was not uploaded.")
    return row["sha256"], row["size_bytes"]


def _entry_row(artifact_id: int, entry: Entry, sources: _Sources) -> tuple[object, ...]:
    sha256, size_bytes = None, entry.size_bytes
    if entry.ref is None:
        sha256, size_bytes = sources[entry.algorithm.value, entry.digest]
    return (
        artifact_id,
        entry.path,
        entry.digest,
        entry.algorithm,
        size_bytes,
        entry.ref,
        entry.birth_artifact_id,
        json.dumps(dict(entry.extra)),
        sha256,
    )


def _store(blobs: BlobStore, content: bytes) -> str:
    with blobs.writer() as writer:
        writer.write(content)
        blob = writer.finish()
        blobs.publish(writer, blob)
    return blob.sha256


def _finalise(
    connection: sqlite3.Connection, artifact: sqlite3.Row, manifest: Manifest, manifest_sha256: str
) -> None:
    artifact_id, sequence_id = artifact["id"], artifact["sequence_id"]
    membership_id = add_membership(connection, sequence_id, artifact_id)
    connection.execute(
        "UPDATE artifacts SET state = 'COMMITTED', digest = ?, size_bytes = ?, file_count = ?,"
        " manifest_sha256 = ?, updated_at = ?, version_index ="
        " (SELECT version_index FROM artifact_memberships WHERE id = ?) WHERE id = ?",
        (
            logical_digest(manifest, DigestAlgorithm(artifact["digest_algorithm"])),
            manifest.size_bytes,
            len(manifest.entries),
            manifest_sha256,
            now_text(),
            membership_id,
            artifact_id,
        ),
    )
    set_aliases(connection, sequence_id, membership_id, json.loads(artifact["requested_aliases"]))
    connection.execute("DELETE FROM artifact_manifests WHERE artifact_id = ?", (artifact_id,))
    connection.execute("DELETE FROM artifact_uploads WHERE artifact_id = ?", (artifact_id,))
    connection.execute("DELETE FROM artifact_multiparts WHERE artifact_id = ?", (artifact_id,))
