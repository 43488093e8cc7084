"""What the pages show of projects and runs, read from one snapshot of the database."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from registry.backend.runs.console import parse_console_line
from registry.backend.runs.documents import config_values, leaf_items
from registry.backend.runs.history import CONSOLE, HISTORY, line_count, tail
from registry.backend.runs.lookup import project_row, run_row
from registry.backend.runs.states import state_of
from registry.errors import NotFoundError

RUNS_PER_PAGE = 50
MAX_HISTORY_LINES = 20_000
CONSOLE_LINES = 200

_PROJECTS = """
    SELECT entity, name,
        (SELECT count(*) FROM runs WHERE project_id = projects.id) AS runs,
        (SELECT count(*) FROM artifact_collections WHERE project_id = projects.id) AS collections,
        max(
            coalesce((SELECT max(heartbeat_at) FROM runs WHERE project_id = projects.id), ''),
            coalesce(
                (SELECT max(updated_at) FROM artifact_collections WHERE project_id = projects.id),
                ''
            )
        ) AS active_at
    FROM projects WHERE ? IS NULL OR entity = ? ORDER BY active_at DESC, entity, name
"""


@dataclass(frozen=True, slots=True)
class ProjectSummary:
    """A line of the list of projects; `active_at` is None before the first run or artifact."""

    entity: str
    name: str
    runs: int
    collections: int
    active_at: str | None


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What lists say of a run."""

    entity: str
    project: str
    name: str
    display_name: str
    state: str
    job_type: str
    created_at: str
    heartbeat_at: str
    tags: tuple[str, ...]
    summary: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RunFile:
    """A file that a run saved."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class RunDetail:
    """Everything that a run's page shows but its artifacts.

    Attributes:
        row_id: the run's number in the database.
        raw_config: as stored, with W&B's own keys.
        config: `{dotted key: value}`.
        history: lines, evenly chosen when there are more than `MAX_HISTORY_LINES`.
        history_length: how many lines there are.
        console: the last lines, oldest first.
        console_length: how many lines there are.
    """

    about: RunSummary
    row_id: int
    group: str | None
    notes: str | None
    host: str | None
    program: str | None
    raw_config: Mapping[str, Any]
    config: Mapping[str, Any]
    history: list[str]
    history_length: int
    console: list[str]
    console_length: int
    files: list[RunFile]


class RunPages:
    """Reads projects and runs.

    Args:
        connection: a snapshot.
        heartbeat_timeout_s: silence after which a running run counts as crashed.
    """

    def __init__(self, connection: sqlite3.Connection, heartbeat_timeout_s: float) -> None:
        self._connection = connection
        self._heartbeat_timeout_s = heartbeat_timeout_s

    def projects(self, entity: str | None = None) -> list[ProjectSummary]:
        """Return the projects of an entity, or all, the most recently active first."""
        rows = self._connection.execute(_PROJECTS, (entity, entity))
        return [
            ProjectSummary(
                row["entity"],
                row["name"],
                row["runs"],
                row["collections"],
                row["active_at"] or None,
            )
            for row in rows
        ]

    def project(self, entity: str, name: str) -> sqlite3.Row:
        """Return a project's row.

        Raises:
            NotFoundError: there is none.
        """
        row = project_row(self._connection, entity, name, entity)
        if row is None:
            raise NotFoundError(f"There is no project {entity}/{name}.")
        return row

    def runs(self, project_id: int | None, *, offset: int = 0) -> list[RunSummary]:
        """Return a page of runs of a project, or of all, the newest first."""
        rows = self._connection.execute(
            "SELECT runs.*, projects.entity, projects.name AS project FROM runs"
            " JOIN projects ON projects.id = project_id WHERE ? IS NULL OR project_id = ?"
            " ORDER BY runs.created_at DESC, runs.id DESC LIMIT ? OFFSET ?",
            (project_id, project_id, RUNS_PER_PAGE, offset),
        )
        return [self.run_summary(row, row["entity"], row["project"]) for row in rows]

    def run_count(self, project_id: int) -> int:
        """Return how many runs a project has."""
        count: int = self._connection.execute(
            "SELECT count(*) FROM runs WHERE project_id = ?", (project_id,)
        ).fetchone()[0]
        return count

    def run_summary(self, row: sqlite3.Row, entity: str, project: str) -> RunSummary:
        """Return what lists say of the run in a row of `runs`."""
        return RunSummary(
            entity=entity,
            project=project,
            name=row["name"],
            display_name=row["display_name"],
            state=state_of(row, self._heartbeat_timeout_s),
            job_type=row["job_type"] or "",
            created_at=row["created_at"],
            heartbeat_at=row["heartbeat_at"],
            tags=tuple(json.loads(row["tags"])),
            summary=dict(leaf_items(json.loads(row["summary"]))),
        )

    def run(self, entity: str, project: str, name: str) -> RunDetail:
        """Return a run by its id.

        Raises:
            NotFoundError: there is none.
        """
        found = self.project(entity, project)
        row = run_row(self._connection, found["id"], name)
        if row is None:
            raise NotFoundError(f"There is no run {name} in {entity}/{project}.")
        raw_config = json.loads(row["config"])
        history, history_length = self._history(row["id"])
        console = tail(self._connection, row["id"], CONSOLE, CONSOLE_LINES)
        return RunDetail(
            about=self.run_summary(row, entity, project),
            row_id=row["id"],
            group=row["run_group"],
            notes=row["notes"],
            host=row["host"],
            program=row["program"],
            raw_config=raw_config,
            config=dict(leaf_items(config_values(raw_config))),
            history=history,
            history_length=history_length,
            console=[str(parse_console_line(line)["line"]) for line in console],
            console_length=line_count(self._connection, row["id"], CONSOLE),
            files=self._files(row["id"]),
        )

    def _history(self, run_id: int) -> tuple[list[str], int]:
        length = line_count(self._connection, run_id, HISTORY)
        stride = -(-length // MAX_HISTORY_LINES) or 1
        rows = self._connection.execute(
            "SELECT content FROM run_lines WHERE run_id = ? AND stream = ?"
            " AND (number % ? = 0 OR number = ?) ORDER BY number",
            (run_id, HISTORY, stride, length - 1),
        )
        return [row["content"] for row in rows], length

    def _files(self, run_id: int) -> list[RunFile]:
        rows = self._connection.execute(
            "SELECT name, size_bytes, sha256 FROM run_files WHERE run_id = ? ORDER BY name",
            (run_id,),
        )
        return [RunFile(row["name"], row["size_bytes"], row["sha256"]) for row in rows]
