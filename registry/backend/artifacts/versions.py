"""Versions of a sequence: begin, find, change and delete. `commit` makes one final."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from registry.backend.artifacts.aliases import (
    artifact_aliases,
    find_membership,
    list_memberships,
    remove_membership,
    set_aliases,
)
from registry.backend.artifacts.manifests import DigestAlgorithm
from registry.backend.artifacts.names import check_alias, check_tags
from registry.backend.clock import now_text, to_text
from registry.errors import NotFoundError, UsageError

TTL_INHERITED = -1
TTL_DISABLED = -2


@dataclass(frozen=True, slots=True)
class NewVersion:
    """What a client says when it begins to log a version.

    Attributes:
        digest: the version's logical digest, hex; of what the client itself adds.
        run_id: row of the run that logs it, or None.
        metadata: a JSON object as text, or None.
        ttl_s: seconds until it may be deleted, or one of `TTL_INHERITED`, `TTL_DISABLED`.
        client_id: the client's own name for it, by which it asks for the server's.
        distributed_id: what several writers of one version share.
        deduplicate: return an existing version of the same digest instead.
    """

    digest: str
    algorithm: DigestAlgorithm
    run_id: int | None = None
    description: str | None = None
    metadata: str | None = None
    ttl_s: int | None = None
    history_step: int | None = None
    client_id: str | None = None
    distributed_id: str | None = None
    aliases: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    deduplicate: bool = True


@dataclass(frozen=True, slots=True)
class VersionChange:
    """New properties of a version; None leaves what is there."""

    description: str | None = None
    metadata: str | None = None
    ttl_s: int | None = None
    tags_to_add: tuple[str, ...] = ()
    tags_to_delete: tuple[str, ...] = ()


def begin_version(connection: sqlite3.Connection, sequence_id: int, new: NewVersion) -> int:
    """Return the id of the version to write to: a pending one, or a committed duplicate.

    Raises:
        UsageError: an alias, a tag or the metadata is not allowed.
    """
    artifact_id = (
        _pending_shared(connection, sequence_id, new.distributed_id)
        or _duplicate(connection, sequence_id, new)
        or _insert(connection, sequence_id, new)
    )
    for alias in new.aliases:
        check_alias(alias)
    change_version(connection, artifact_id, VersionChange(tags_to_add=new.tags))
    _request_aliases(connection, sequence_id, artifact_id, new.aliases)
    if new.client_id:
        connection.execute(
            "INSERT INTO artifact_client_ids VALUES (?, ?) ON CONFLICT (client_id)"
            " DO UPDATE SET artifact_id = excluded.artifact_id",
            (new.client_id, artifact_id),
        )
    return artifact_id


def _pending_shared(
    connection: sqlite3.Connection, sequence_id: int, distributed_id: str | None
) -> int | None:
    row = connection.execute(
        "SELECT id FROM artifacts WHERE sequence_id = ? AND distributed_id = ?"
        " AND state = 'PENDING' ORDER BY id LIMIT 1",
        (sequence_id, distributed_id),
    ).fetchone()
    return int(row["id"]) if row else None


def _duplicate(connection: sqlite3.Connection, sequence_id: int, new: NewVersion) -> int | None:
    if not new.deduplicate or new.distributed_id:
        return None
    row = connection.execute(
        "SELECT id FROM artifacts WHERE sequence_id = ? AND digest = ? AND state = 'COMMITTED'"
        " ORDER BY version_index DESC LIMIT 1",
        (sequence_id, new.digest),
    ).fetchone()
    return int(row["id"]) if row else None


def _insert(connection: sqlite3.Connection, sequence_id: int, new: NewVersion) -> int:
    now = now_text()
    cursor = connection.execute(
        "INSERT INTO artifacts (sequence_id, digest, digest_algorithm, description, metadata,"
        " ttl_s, history_step, distributed_id, created_by_run_id, created_at, updated_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            sequence_id,
            new.digest,
            new.algorithm,
            new.description,
            check_metadata(new.metadata),
            _stored_ttl(new.ttl_s),
            new.history_step,
            new.distributed_id,
            new.run_id,
            now,
            now,
        ),
    )
    return int(cursor.lastrowid or 0)


def _request_aliases(
    connection: sqlite3.Connection, sequence_id: int, artifact_id: int, aliases: Iterable[str]
) -> None:
    """Move aliases now if the version is committed, else when it will be."""
    membership = find_membership(connection, sequence_id, artifact_id)
    if membership is not None:
        set_aliases(connection, sequence_id, membership["id"], aliases)
        return
    row = get_artifact(connection, artifact_id)
    wanted = dict.fromkeys([*json.loads(row["requested_aliases"]), *aliases])
    connection.execute(
        "UPDATE artifacts SET requested_aliases = ? WHERE id = ?",
        (json.dumps(list(wanted)), artifact_id),
    )


def check_metadata(text: str | None) -> str | None:
    """Return metadata if it is a JSON object or absent.

    Raises:
        UsageError: it is something else.
    """
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError("The artifact's metadata is no JSON.") from error
    if not isinstance(value, dict):
        raise UsageError("The artifact's metadata is no JSON object.")
    return text


def _stored_ttl(ttl_s: int | None) -> int | None:
    return None if ttl_s in (None, TTL_INHERITED) else ttl_s


def find_artifact(connection: sqlite3.Connection, artifact_id: int | None) -> sqlite3.Row | None:
    """Return the row of a version (`artifact_details`), or None."""
    row: sqlite3.Row | None = connection.execute(
        "SELECT * FROM artifact_details WHERE id = ?", (artifact_id,)
    ).fetchone()
    return row


def get_artifact(connection: sqlite3.Connection, artifact_id: int | None) -> sqlite3.Row:
    """Return the row of a version (`artifact_details`).

    Raises:
        NotFoundError: there is none.
    """
    row = find_artifact(connection, artifact_id)
    if row is None:
        raise NotFoundError("There is no such artifact version.")
    return row


def artifact_by_client_id(connection: sqlite3.Connection, client_id: str) -> int | None:
    """Return the id of the version that a client calls `client_id`, or None."""
    row = connection.execute(
        "SELECT artifact_id FROM artifact_client_ids WHERE client_id = ?", (client_id,)
    ).fetchone()
    return int(row["artifact_id"]) if row else None


def latest_version(connection: sqlite3.Connection, sequence_id: int) -> sqlite3.Row | None:
    """Return the row of a sequence's newest committed version, or None."""
    row: sqlite3.Row | None = connection.execute(
        "SELECT * FROM artifact_details WHERE sequence_id = ? AND state = 'COMMITTED'"
        " ORDER BY version_index DESC LIMIT 1",
        (sequence_id,),
    ).fetchone()
    return row


def change_version(connection: sqlite3.Connection, artifact_id: int, change: VersionChange) -> None:
    """Change description, metadata, time to live and tags of a version.

    Raises:
        NotFoundError: there is no such version.
        UsageError: a tag or the metadata is not allowed.
    """
    current = get_artifact(connection, artifact_id)
    ttl_s = current["ttl_s"] if change.ttl_s is None else _stored_ttl(change.ttl_s)
    connection.execute(
        "UPDATE artifacts SET description = coalesce(?, description),"
        " metadata = coalesce(?, metadata), ttl_s = ?, updated_at = ? WHERE id = ?",
        (change.description, check_metadata(change.metadata), ttl_s, now_text(), artifact_id),
    )
    connection.executemany(
        "INSERT INTO artifact_tags (artifact_id, name) VALUES (?, ?) ON CONFLICT DO NOTHING",
        [(artifact_id, tag) for tag in check_tags(change.tags_to_add)],
    )
    connection.executemany(
        "DELETE FROM artifact_tags WHERE artifact_id = ? AND name = ?",
        [(artifact_id, tag) for tag in change.tags_to_delete],
    )


def artifact_tags(connection: sqlite3.Connection, artifact_id: int) -> list[sqlite3.Row]:
    """Return rows (`id`, `name`) of a version's tags, oldest first."""
    return connection.execute(
        "SELECT id, name FROM artifact_tags WHERE artifact_id = ? ORDER BY id", (artifact_id,)
    ).fetchall()


def delete_version(
    connection: sqlite3.Connection, artifact_id: int, *, delete_aliases: bool
) -> set[str]:
    """Delete a version with its links; return the blobs (SHA-256) that it referred to.

    Raises:
        NotFoundError: there is no such version.
        UsageError: it has aliases and `delete_aliases` is false.
    """
    get_artifact(connection, artifact_id)
    aliases = [row["alias"] for row in artifact_aliases(connection, artifact_id)]
    if aliases and not delete_aliases:
        raise UsageError(
            f"The version has aliases ({', '.join(aliases)}) and is not deleted;"
            " delete them first, or pass delete_aliases=True."
        )
    dropped = version_blobs(connection, artifact_id)
    for membership in list_memberships(connection, artifact_id):
        remove_membership(connection, membership)
    connection.execute("DELETE FROM artifacts WHERE id = ?", (artifact_id,))
    return dropped


def delete_collection(connection: sqlite3.Connection, collection_id: int) -> set[str]:
    """Delete a collection and, if it is a sequence, its versions; return their blobs."""
    rows = connection.execute(
        "SELECT id FROM artifacts WHERE sequence_id = ?", (collection_id,)
    ).fetchall()
    dropped: set[str] = set()
    for row in rows:
        dropped |= delete_version(connection, row["id"], delete_aliases=True)
    connection.execute("DELETE FROM artifact_collections WHERE id = ?", (collection_id,))
    return dropped


def delete_abandoned(connection: sqlite3.Connection, grace_s: float) -> set[str]:
    """Delete pending versions that nobody wrote to for `grace_s`; return their blobs."""
    before = to_text(datetime.now(UTC) - timedelta(seconds=grace_s))
    rows = connection.execute(
        "SELECT id FROM artifacts WHERE state = 'PENDING' AND updated_at < ?", (before,)
    ).fetchall()
    dropped: set[str] = set()
    for row in rows:
        dropped |= delete_version(connection, row["id"], delete_aliases=True)
    return dropped


def version_blobs(connection: sqlite3.Connection, artifact_id: int) -> set[str]:
    """Return every blob (SHA-256) that a version, committed or pending, refers to."""
    rows = connection.execute(
        "SELECT sha256 FROM artifact_entries WHERE artifact_id = :id UNION"
        " SELECT manifest_sha256 FROM artifacts WHERE id = :id UNION"
        " SELECT sha256 FROM artifact_uploads WHERE artifact_id = :id UNION"
        " SELECT sha256 FROM artifact_manifests WHERE artifact_id = :id UNION"
        " SELECT sha256 FROM artifact_parts WHERE multipart_id IN"
        " (SELECT id FROM artifact_multiparts WHERE artifact_id = :id)",
        {"id": artifact_id},
    )
    return {row[0] for row in rows if row[0] is not None}


def touch(connection: sqlite3.Connection, artifact_id: int) -> None:
    """Note that a version is still being written to."""
    connection.execute(
        "UPDATE artifacts SET updated_at = ? WHERE id = ?", (now_text(), artifact_id)
    )
