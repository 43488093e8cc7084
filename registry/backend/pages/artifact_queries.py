"""What the pages show of artifacts, read from one snapshot of the database."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from registry.backend.artifacts.aliases import membership_aliases, resolve_alias
from registry.backend.artifacts.collections import (
    CollectionKind,
    collection_tags,
    find_collection,
    list_collections,
)
from registry.backend.artifacts.lineage import Direction, artifact_runs, run_artifacts
from registry.backend.artifacts.versions import artifact_tags, get_artifact
from registry.backend.runs.documents import leaf_items
from registry.errors import NotFoundError

MAX_FILES = 1000

_MEMBERSHIPS = (
    "SELECT artifact_memberships.*, projects.entity, projects.name AS project,"
    " artifact_collections.name AS collection, artifact_types.name AS type_name,"
    " artifacts.digest, artifacts.size_bytes, artifacts.file_count,"
    " artifacts.created_at AS made_at"
    " FROM artifact_memberships"
    " JOIN artifacts ON artifacts.id = artifact_id AND artifacts.state = 'COMMITTED'"
    " JOIN artifact_collections ON artifact_collections.id = collection_id"
    " JOIN artifact_types ON artifact_types.id = type_id"
    " JOIN projects ON projects.id = artifact_collections.project_id"
)
_IN_COLLECTION = (
    _MEMBERSHIPS + " WHERE artifact_memberships.collection_id = ?"
    " ORDER BY artifact_memberships.version_index DESC"
)
_OF_ARTIFACT = (
    _MEMBERSHIPS + " WHERE artifact_memberships.artifact_id = ? ORDER BY artifact_memberships.id"
)
_BY_ID = _MEMBERSHIPS + " WHERE artifact_memberships.id = ?"


@dataclass(frozen=True, slots=True)
class VersionSummary:
    """A version as a collection lists it; `version` is the collection's own number, `v3`."""

    artifact_id: int
    entity: str
    project: str
    type_name: str
    collection: str
    version: str
    aliases: tuple[str, ...]
    digest: str
    size_bytes: int
    file_count: int
    created_at: str


@dataclass(frozen=True, slots=True)
class CollectionSummary:
    """A collection as a project lists it; `newest` is None while it is empty."""

    name: str
    type_name: str
    is_links: bool
    description: str | None
    tags: tuple[str, ...]
    versions: int
    newest: VersionSummary | None


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a version, or a reference to one (`sha256` None)."""

    path: str
    size_bytes: int | None
    digest: str
    sha256: str | None
    reference: str | None


@dataclass(frozen=True, slots=True)
class RunLink:
    """Enough of a run to link to it."""

    entity: str
    project: str
    name: str
    display_name: str
    job_type: str


@dataclass(frozen=True, slots=True)
class VersionDetail:
    """Everything that a version's page shows.

    Attributes:
        metadata: `{dotted key: value}`.
        entries: the first `MAX_FILES` files, by path.
        made_by, used_by: the runs that logged and that took this version.
        made_from: versions that the runs which logged it had taken.
        led_to: versions that the runs which took it have logged.
        places: every collection that it is in: its own, and those that link to it.
    """

    about: VersionSummary
    description: str | None
    tags: tuple[str, ...]
    metadata: Mapping[str, Any]
    entries: list[Entry]
    made_by: list[RunLink]
    used_by: list[RunLink]
    made_from: list[VersionSummary]
    led_to: list[VersionSummary]
    places: list[VersionSummary]


class ArtifactPages:
    """Reads collections and versions from `connection`, a snapshot."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def collections(self, project_id: int) -> list[CollectionSummary]:
        """Return a project's collections, as the database lists them."""
        return [self._collection(row) for row in list_collections(self._connection, project_id)]

    def collection(self, project_id: int, name: str) -> tuple[CollectionSummary, sqlite3.Row]:
        """Return a collection and its row.

        Raises:
            NotFoundError: there is none.
        """
        row = find_collection(self._connection, project_id, name)
        if row is None:
            raise NotFoundError(f"There is no artifact collection {name}.")
        return self._collection(row), row

    def _collection(self, row: sqlite3.Row) -> CollectionSummary:
        versions = self.versions(row["id"])
        return CollectionSummary(
            name=row["name"],
            type_name=row["type_name"],
            is_links=row["kind"] == CollectionKind.PORTFOLIO,
            description=row["description"],
            tags=tuple(tag["name"] for tag in collection_tags(self._connection, row["id"])),
            versions=len(versions),
            newest=versions[0] if versions else None,
        )

    def versions(self, collection_id: int) -> list[VersionSummary]:
        """Return a collection's committed versions, the newest first."""
        rows = self._memberships(_IN_COLLECTION, collection_id)
        return [self._summary(row) for row in rows]

    def version(self, collection: sqlite3.Row, alias: str) -> VersionDetail:
        """Return the version that `v3` or an alias names in a collection.

        Raises:
            NotFoundError: there is none.
        """
        membership = resolve_alias(self._connection, collection["id"], alias)
        if membership is None:
            raise NotFoundError(f"There is no version {alias} of {collection['name']}.")
        (row,) = self._memberships(_BY_ID, membership["id"])
        artifact_id = row["artifact_id"]
        artifact = get_artifact(self._connection, artifact_id)
        made_by = artifact_runs(self._connection, artifact_id, Direction.OUTPUT)
        used_by = artifact_runs(self._connection, artifact_id, Direction.INPUT)
        places = self._memberships(_OF_ARTIFACT, artifact_id)
        return VersionDetail(
            about=self._summary(row),
            description=artifact["description"],
            tags=tuple(tag["name"] for tag in artifact_tags(self._connection, artifact_id)),
            metadata=dict(leaf_items(json.loads(artifact["metadata"] or "{}"))),
            entries=self._entries(artifact_id),
            made_by=[self._run_link(run) for run in made_by],
            used_by=[self._run_link(run) for run in used_by],
            made_from=self._of_runs(made_by, Direction.INPUT),
            led_to=self._of_runs(used_by, Direction.OUTPUT),
            places=[self._summary(place) for place in places],
        )

    def of_run(self, run_id: int, direction: Direction) -> list[VersionSummary]:
        """Return the versions that a run logged or took, under their own collections' names."""
        found: list[VersionSummary] = []
        for artifact in run_artifacts(self._connection, run_id, direction):
            found.extend(
                self._summary(row)
                for row in self._memberships(_OF_ARTIFACT, artifact["id"])
                if row["collection_id"] == artifact["sequence_id"]
            )
        return found

    def _of_runs(self, runs: Iterable[sqlite3.Row], direction: Direction) -> list[VersionSummary]:
        found = [version for run in runs for version in self.of_run(run["id"], direction)]
        return list({version.artifact_id: version for version in found}.values())

    def _entries(self, artifact_id: int) -> list[Entry]:
        rows = self._connection.execute(
            "SELECT * FROM artifact_entries WHERE artifact_id = ? ORDER BY path LIMIT ?",
            (artifact_id, MAX_FILES),
        )
        return [
            Entry(row["path"], row["size_bytes"], row["digest"], row["sha256"], row["ref"])
            for row in rows
        ]

    def _memberships(self, query: str, value: object) -> list[sqlite3.Row]:
        return self._connection.execute(query, (value,)).fetchall()

    def _summary(self, row: sqlite3.Row) -> VersionSummary:
        return VersionSummary(
            artifact_id=row["artifact_id"],
            entity=row["entity"],
            project=row["project"],
            type_name=row["type_name"],
            collection=row["collection"],
            version=f"v{row['version_index']}",
            aliases=tuple(a["alias"] for a in membership_aliases(self._connection, row["id"])),
            digest=row["digest"],
            size_bytes=row["size_bytes"],
            file_count=row["file_count"],
            created_at=row["made_at"],
        )

    def _run_link(self, run: sqlite3.Row) -> RunLink:
        project = self._connection.execute(
            "SELECT entity, name FROM projects WHERE id = ?", (run["project_id"],)
        ).fetchone()
        return RunLink(
            project["entity"],
            project["name"],
            run["name"],
            run["display_name"],
            run["job_type"] or "",
        )
