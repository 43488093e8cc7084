"""Files on their way into a pending version: what is stored already, what arrived, parts."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from registry.backend.artifacts.manifests import DigestAlgorithm, digest_hex
from registry.backend.artifacts.versions import get_artifact, touch
from registry.backend.blobs import Blob, BlobStore
from registry.backend.parts import Claims
from registry.errors import IntegrityError, NotFoundError, UsageError

FILE_UPLOAD = "artifact-file"
PART_UPLOAD = "artifact-part"
MANIFEST_UPLOAD = "artifact-manifest"

MAX_PARTS = 10_000


@dataclass(frozen=True, slots=True)
class FileDigest:
    """What the manifest will say about a stored file's bytes; `digest` is base64."""

    algorithm: DigestAlgorithm
    digest: str

    def check(self, blob: Blob) -> None:
        """Fail if `blob` is something else.

        Raises:
            IntegrityError: the digests differ.
        """
        found = blob.xxh128 if self.algorithm is DigestAlgorithm.XXH128 else blob.md5
        if found != digest_hex(self.digest):
            raise IntegrityError(
                f"The bytes have {self.algorithm.name} {found}, the manifest promises"
                f" {digest_hex(self.digest)}."
            )


@dataclass(frozen=True, slots=True)
class PartPromise:
    """One announced part of a large file: its number, from 1, and its MD5 in hex."""

    number: int
    md5: str


def get_pending(connection: sqlite3.Connection, artifact_id: int | None) -> sqlite3.Row:
    """Return the row of a version that still takes files.

    Raises:
        NotFoundError: there is no such version.
        UsageError: it is committed.
    """
    row = get_artifact(connection, artifact_id)
    if row["state"] != "PENDING":
        raise UsageError("The version is committed; nothing can be added to it.")
    return row


def claim_stored(
    connection: sqlite3.Connection, blobs: BlobStore, artifact_id: int, file: FileDigest
) -> bool:
    """Tell whether the bytes are stored; if so, keep them for this version.

    A row whose blob was lost does not count, so that logging the file again heals it.
    """
    row = connection.execute(
        "SELECT sha256, size_bytes FROM artifact_uploads WHERE digest = :digest AND"
        " algorithm = :algorithm UNION ALL SELECT sha256, size_bytes FROM artifact_entries"
        " WHERE digest = :digest AND algorithm = :algorithm AND sha256 IS NOT NULL LIMIT 1",
        {"digest": file.digest, "algorithm": file.algorithm},
    ).fetchone()
    if row is None or not blobs.exists(row["sha256"]):
        return False
    _keep(connection, artifact_id, file, row["sha256"], row["size_bytes"])
    return True


def _keep(
    connection: sqlite3.Connection,
    artifact_id: int,
    file: FileDigest,
    sha256: str,
    size_bytes: int,
) -> None:
    connection.execute(
        "INSERT INTO artifact_uploads VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (artifact_id, file.algorithm, file.digest, sha256, size_bytes),
    )
    touch(connection, artifact_id)


def file_claims(artifact_id: int, file: FileDigest) -> dict[str, object]:
    """Return what the signed URL of a whole file's upload carries."""
    return {"artifact": artifact_id, "algorithm": file.algorithm.value, "digest": file.digest}


def _claimed_file(claims: Claims) -> FileDigest:
    return FileDigest(DigestAlgorithm(str(claims["algorithm"])), str(claims["digest"]))


def record_file(connection: sqlite3.Connection, claims: Claims, blob: Blob) -> None:
    """Record a whole file that arrived for a pending version.

    Raises:
        NotFoundError: the version is gone, or committed without this file.
        IntegrityError: the bytes are not those promised.
    """
    file = _claimed_file(claims)
    file.check(blob)
    artifact_id = _number(claims, "artifact")
    if get_artifact(connection, artifact_id)["state"] != "PENDING":
        raise NotFoundError("The version is committed; nothing can be added to it.")
    _keep(connection, artifact_id, file, blob.sha256, blob.size_bytes)


def begin_multipart(
    connection: sqlite3.Connection,
    artifact_id: int,
    file: FileDigest,
    parts: Sequence[PartPromise],
) -> int:
    """Return the id of the upload of a file in parts; asked for again, it is the same.

    Raises:
        UsageError: the parts are not numbered from 1 without a gap, or too many.
    """
    if [part.number for part in parts] != list(range(1, len(parts) + 1)) or len(parts) > MAX_PARTS:
        raise UsageError("The parts must be numbered from 1 without a gap.")
    connection.execute(
        "INSERT INTO artifact_multiparts (artifact_id, algorithm, digest) VALUES (?, ?, ?)"
        " ON CONFLICT DO NOTHING",
        (artifact_id, file.algorithm, file.digest),
    )
    multipart_id = int(
        connection.execute(
            "SELECT id FROM artifact_multiparts WHERE artifact_id = ? AND algorithm = ?"
            " AND digest = ?",
            (artifact_id, file.algorithm, file.digest),
        ).fetchone()["id"]
    )
    connection.executemany(
        "INSERT INTO artifact_parts (multipart_id, number, md5) VALUES (?, ?, ?)"
        " ON CONFLICT (multipart_id, number) DO UPDATE SET sha256 = NULL, size_bytes = NULL,"
        " md5 = excluded.md5 WHERE md5 != excluded.md5",
        [(multipart_id, part.number, part.md5) for part in parts],
    )
    connection.execute(
        "DELETE FROM artifact_parts WHERE multipart_id = ? AND number > ?",
        (multipart_id, len(parts)),
    )
    touch(connection, artifact_id)
    return multipart_id


def record_part(connection: sqlite3.Connection, claims: Claims, blob: Blob) -> None:
    """Record a part that arrived.

    Raises:
        NotFoundError: the upload is gone or complete.
        IntegrityError: the bytes are not those announced.
    """
    multipart_id, number = _number(claims, "multipart"), _number(claims, "part")
    row = connection.execute(
        "SELECT artifact_id, md5 FROM artifact_parts JOIN artifact_multiparts"
        " ON artifact_multiparts.id = multipart_id WHERE multipart_id = ? AND number = ?",
        (multipart_id, number),
    ).fetchone()
    if row is None:
        raise NotFoundError("The upload is complete or was given up.")
    if row["md5"] != blob.md5:
        raise IntegrityError(f"Part {number} has MD5 {blob.md5}, {row['md5']} was announced.")
    connection.execute(
        "UPDATE artifact_parts SET sha256 = ?, size_bytes = ? WHERE multipart_id = ?"
        " AND number = ?",
        (blob.sha256, blob.size_bytes, multipart_id, number),
    )
    touch(connection, row["artifact_id"])


@dataclass(frozen=True, slots=True)
class CompleteParts:
    """A multipart upload all of whose parts are here, in order (SHA-256 of each)."""

    multipart_id: int
    artifact_id: int
    file: FileDigest
    parts: tuple[str, ...]


def find_parts(connection: sqlite3.Connection, multipart_id: int | None) -> CompleteParts | None:
    """Return the parts to join, or None if the upload is unknown or was completed.

    Raises:
        UsageError: a part has not arrived.
    """
    upload = connection.execute(
        "SELECT * FROM artifact_multiparts WHERE id = ?", (multipart_id,)
    ).fetchone()
    if upload is None:
        return None
    rows = connection.execute(
        "SELECT number, sha256 FROM artifact_parts WHERE multipart_id = ? ORDER BY number",
        (multipart_id,),
    ).fetchall()
    missing = [row["number"] for row in rows if row["sha256"] is None]
    if missing or not rows:
        raise UsageError(f"Parts {missing[:10]} have not arrived.")
    file = FileDigest(DigestAlgorithm(upload["algorithm"]), upload["digest"])
    parts = tuple(row["sha256"] for row in rows)
    return CompleteParts(upload["id"], upload["artifact_id"], file, parts)


def record_joined(connection: sqlite3.Connection, claims: Claims, blob: Blob) -> None:
    """Record a file joined from its parts, whose rows end here.

    Raises:
        NotFoundError: the version is gone.
        IntegrityError: the whole is not what was promised.
    """
    record_file(connection, claims, blob)
    connection.execute(
        "DELETE FROM artifact_multiparts WHERE id = ?", (_number(claims, "multipart"),)
    )


def abort_multipart(connection: sqlite3.Connection, multipart_id: int | None) -> set[str]:
    """Give an upload up; return the parts' blobs (SHA-256)."""
    rows = connection.execute(
        "SELECT sha256 FROM artifact_parts WHERE multipart_id = ? AND sha256 IS NOT NULL",
        (multipart_id,),
    ).fetchall()
    connection.execute("DELETE FROM artifact_multiparts WHERE id = ?", (multipart_id,))
    return {row["sha256"] for row in rows}


def record_manifest(connection: sqlite3.Connection, claims: Claims, blob: Blob) -> None:
    """Record a manifest that arrived for a pending version.

    Raises:
        NotFoundError: the version is gone or committed.
        IntegrityError: the bytes are not those announced.
    """
    row = connection.execute(
        "SELECT artifact_id, md5 FROM artifact_manifests WHERE id = ?",
        (_number(claims, "manifest"),),
    ).fetchone()
    if row is None:
        raise NotFoundError("The manifest is of a version that is gone or committed.")
    if not row["md5"] or digest_hex(row["md5"]) != blob.md5:
        raise IntegrityError("The manifest is not the one that was announced.")
    connection.execute(
        "UPDATE artifact_manifests SET sha256 = ? WHERE id = ?",
        (blob.sha256, _number(claims, "manifest")),
    )
    touch(connection, row["artifact_id"])


def _number(claims: Claims, name: str) -> int:
    value = claims.get(name)
    if not isinstance(value, int):
        raise NotFoundError(f"The URL names no {name}.")
    return value


UPLOAD_KINDS = {
    FILE_UPLOAD: record_file,
    PART_UPLOAD: record_part,
    MANIFEST_UPLOAD: record_manifest,
}
