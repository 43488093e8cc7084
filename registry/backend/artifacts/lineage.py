"""Which run made and which runs used a version."""

from __future__ import annotations

import sqlite3
from enum import StrEnum

from registry.backend.clock import now_text


class Direction(StrEnum):
    """Seen from the run."""

    INPUT = "INPUT"
    OUTPUT = "OUTPUT"


def record_lineage(
    connection: sqlite3.Connection,
    run_id: int,
    artifact_id: int,
    direction: Direction,
    used_as: str | None = None,
) -> None:
    """Note that a run used or logged a version; twice is once."""
    connection.execute(
        "INSERT INTO artifact_lineage (run_id, artifact_id, direction, used_as, created_at)"
        " VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET used_as ="
        " coalesce(excluded.used_as, used_as)",
        (run_id, artifact_id, direction, used_as, now_text()),
    )


def run_artifacts(
    connection: sqlite3.Connection, run_id: int, direction: Direction
) -> list[sqlite3.Row]:
    """Return the committed versions (`artifact_details`) of a run, oldest first."""
    return connection.execute(
        "SELECT artifact_details.* FROM artifact_lineage JOIN artifact_details"
        " ON artifact_details.id = artifact_lineage.artifact_id"
        " WHERE run_id = ? AND direction = ? AND state = 'COMMITTED'"
        " ORDER BY artifact_lineage.created_at, artifact_details.id",
        (run_id, direction),
    ).fetchall()


def artifact_runs(
    connection: sqlite3.Connection, artifact_id: int, direction: Direction
) -> list[sqlite3.Row]:
    """Return the rows of the runs that used or logged a version, oldest first."""
    return connection.execute(
        "SELECT runs.* FROM artifact_lineage JOIN runs ON runs.id = artifact_lineage.run_id"
        " WHERE artifact_id = ? AND direction = ? ORDER BY artifact_lineage.created_at, runs.id",
        (artifact_id, direction),
    ).fetchall()
