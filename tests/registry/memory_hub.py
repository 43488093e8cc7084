"""A `Hub` that holds artifacts in memory and serves their bytes over real HTTP."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from registry.hub import Collection, RunRecord
from registry.versions import ArtifactVersion, Digest, FileEntry
from tests.registry.file_server import FileServer


class MemoryRun:
    url = "memory://run"

    def __init__(self) -> None:
        self.summary: dict[str, Any] = {}

    def summarize(self, values: Mapping[str, Any]) -> None:
        self.summary.update(values)


class MemoryHub:
    """Counts its questions, so that tests can say how many there were."""

    def __init__(self, server: FileServer) -> None:
        self.server = server
        self.held: list[ArtifactVersion] = []
        self.records: list[RunRecord] = []
        self.displayed: dict[str, list[Collection]] = {}
        self.loggers: dict[str, tuple[str, str]] = {}
        self.used: dict[str, list[ArtifactVersion]] = {}
        self.questions = 0
        self.on_move: Any = None

    def log(
        self, collection: str, files: Mapping[str, bytes], *aliases: str, **facts: Any
    ) -> ArtifactVersion:
        """Log a version, as a run would."""
        number = sum(v.collection == collection for v in self.held)
        entries = []
        for path, raw in files.items():
            # Served by content, so that versions do not overwrite each other.
            md5 = hashlib.md5(raw).hexdigest()
            self.server.files[md5] = raw
            entries.append(FileEntry(path, len(raw), Digest("md5", md5)))
        digest = hashlib.md5(repr(entries).encode()).hexdigest()
        for alias in (*aliases, "latest"):
            self._take(collection, alias)
        version = ArtifactVersion(
            "me", "p", collection, f"v{number}", digest, facts.pop("type", "model"),
            (*aliases, "latest"), facts.pop("metadata", {}), tuple(facts.pop("entries", entries)),
        )  # fmt: skip
        self.held.append(version)
        return version

    def _take(self, collection: str, alias: str) -> None:
        self.held = [
            replace(v, aliases=tuple(a for a in v.aliases if a != alias))
            if v.collection == collection
            else v
            for v in self.held
        ]

    def default_entity(self) -> str:
        return "me"

    def version(
        self, entity: str, project: str, collection: str, selector: str
    ) -> ArtifactVersion | None:
        self.questions += 1
        for v in self.held:
            if v.collection == collection and selector in (v.version, *v.aliases):
                return replace(v, files=())
        return None

    def files(self, version: ArtifactVersion) -> tuple[FileEntry, ...]:
        self.questions += 1
        return self._held(version).files

    def _held(self, version: ArtifactVersion) -> ArtifactVersion:
        return next(
            v
            for v in self.held
            if (v.collection, v.version) == (version.collection, version.version)
        )

    def addresses(self, version: ArtifactVersion, paths: Sequence[str]) -> dict[str, str]:
        self.questions += 1
        names = {f.path: f.digest.hex for f in self._held(version).files if f.digest}
        found = self.server.addresses([names[path] for path in paths])
        return {path: found[names[path]] for path in paths}

    def collections(self, entity: str, project: str) -> list[Collection]:
        self.questions += 1
        return list({Collection("me", "p", v.collection, v.type): None for v in self.held})

    def versions(self, collection: Collection) -> list[ArtifactVersion]:
        self.questions += 1
        found = [replace(v, files=()) for v in self.held if v.collection == collection.name]
        return found[::-1]

    def logged_by(self, version: ArtifactVersion) -> tuple[str, str] | None:
        return self.loggers.get(version.short_name)

    def inputs(self, version: ArtifactVersion) -> list[ArtifactVersion]:
        self.questions += 1
        return self.used.get(version.short_name, [])

    def logged_under(self, entity: str, project: str, display_name: str) -> list[Collection]:
        return self.displayed.get(display_name, [])

    def move_alias(self, version: ArtifactVersion, alias: str) -> None:
        self._take(version.collection, alias)
        self.held = [
            replace(v, aliases=(*v.aliases, alias))
            if (v.collection, v.version) == (version.collection, version.version)
            else v
            for v in self.held
        ]
        if self.on_move is not None:
            self.on_move()

    def runs(self, entity: str, project: str, job_type: str) -> list[RunRecord]:
        return self.records[::-1]

    @contextmanager
    def write_run(
        self, uses: ArtifactVersion, *, job_type: str, name: str, config: Mapping[str, Any]
    ) -> Iterator[MemoryRun]:
        run = MemoryRun()
        try:
            yield run
        finally:
            number = str(len(self.records))
            record = RunRecord(number, name, run.url, number, dict(config), run.summary)
            self.records.append(record)

    def use_in_active_run(self, version: ArtifactVersion) -> bool:
        return False
