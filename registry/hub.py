"""The W&B server, as the rest of the package sees it.

`Hub` is the seam: everything above it speaks of `ArtifactVersion`s and plain
values. `WandbHub` is the one implementation and, beside the Trainer callback,
the only module that imports the SDK; it uses nothing but its public API.

What it does not do is fetch an artifact's bytes: the SDK's download neither
checks digests nor resumes, so `registry.transfer` does that from the addresses
that `addresses()` returns.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from registry.config import Settings
from registry.errors import NotFoundError, UnavailableError
from registry.sdk_errors import translated
from registry.sdk_upload import Upload, Uploaded, run_settings, upload
from registry.sdk_values import Lineage, as_file, as_lineage, as_version
from registry.versions import ArtifactVersion, FileEntry

PROMOTION_JOB_TYPE = "promotion"
_PAGE = 500


@dataclass(frozen=True, slots=True)
class Collection:
    """A named sequence of versions.

    Attributes:
        entity, project, name: where it lives.
        type: the artifact type, such as `model`.
    """

    entity: str
    project: str
    name: str
    type: str


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A finished run, as the history of promotions needs it.

    Attributes:
        id, name, url: of the run.
        created_at: RFC 3339 time.
        config, summary: JSON values as logged.
    """

    id: str
    name: str
    url: str
    created_at: str
    config: Mapping[str, Any]
    summary: Mapping[str, Any]


class RunHandle(Protocol):
    """A run that is being written."""

    @property
    def url(self) -> str:
        """Address of the run's page."""

    def summarize(self, values: Mapping[str, Any]) -> None:
        """Set summary values."""


class Hub(Protocol):
    """What the registry asks of a W&B server.

    Every method may raise AuthError, NotFoundError or UnavailableError.
    """

    def address(self) -> str:
        """Return the server's address; asks nobody."""

    def default_entity(self) -> str:
        """Return the account's own entity."""

    def version(
        self, entity: str, project: str, collection: str, selector: str
    ) -> ArtifactVersion | None:
        """Return one version (without files) by `vN` or alias, or None if there is none."""

    def files(self, version: ArtifactVersion) -> tuple[FileEntry, ...]:
        """Return the version's manifest."""

    def addresses(self, version: ArtifactVersion, paths: Sequence[str]) -> dict[str, str]:
        """Return path -> URL of its bytes; the URLs expire and are asked for again."""

    def collections(self, entity: str, project: str) -> list[Collection]:
        """List all collections of a project; empty when there is no such project."""

    def versions(self, collection: Collection) -> list[ArtifactVersion]:
        """List the versions of a collection, newest first, without files."""

    def logged_by(self, version: ArtifactVersion) -> tuple[str, str] | None:
        """Return (id, display name) of the run that logged the version, when known."""

    def inputs(self, version: ArtifactVersion) -> list[ArtifactVersion]:
        """List the versions that the run which logged `version` used, without files."""

    def logged_under(self, entity: str, project: str, display_name: str) -> list[Collection]:
        """List the collections that runs displayed as `display_name` logged into."""

    def move_alias(self, version: ArtifactVersion, alias: str) -> None:
        """Point `alias` at the version; W&B takes it from the version that had it."""

    def runs(self, entity: str, project: str, job_type: str) -> list[RunRecord]:
        """List a project's runs of one job type, newest first."""

    def write_run(
        self, uses: ArtifactVersion, *, job_type: str, name: str, config: Mapping[str, Any]
    ) -> Any:
        """Open a run that uses the version: a context manager yielding a RunHandle."""

    def use_in_active_run(self, version: ArtifactVersion) -> bool:
        """Record in the caller's active run, if any, that it uses the version."""

    def lineage(self, version: ArtifactVersion) -> Lineage:
        """Return the runs around a version, and what the one that logged it was made from."""

    def upload(self, what: Upload, existing: Sequence[ArtifactVersion]) -> Uploaded:
        """Log a folder's files as a version, unless one of `existing` has the same bytes."""


class WandbHub:
    """A `Hub` that speaks to W&B, or the embedded backend, through the SDK.

    Args:
        settings: server, defaults and timeout. Nothing is contacted before the first question.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._api: Any = None

    def api(self) -> Any:
        """Return the SDK's `Api`, logging in on first use."""
        with self._lock:
            if self._api is None:
                with translated("log in to W&B"):
                    import wandb

                    overrides: dict[str, Any] = {"project": self._settings.project}
                    if self._settings.entity:
                        overrides["entity"] = self._settings.entity
                    if self._settings.base_url:
                        overrides["base_url"] = self._settings.base_url
                    self._api = wandb.Api(overrides=overrides, timeout=self._settings.api_timeout_s)
            return self._api

    def address(self) -> str:
        """Return the server's address; asks nobody."""
        if self._settings.base_url:
            return self._settings.base_url
        with translated("read the SDK's settings"):
            import wandb

            return str(wandb.setup().settings.base_url)

    def default_entity(self) -> str:
        """Return the configured entity, else the account's own."""
        if self._settings.entity:
            return self._settings.entity
        api = self.api()
        with translated("ask for the account's entity"):
            entity = api.default_entity
        if not entity:
            raise NotFoundError(
                "The account has no default entity.",
                hint="Set WANDB_ENTITY or write entity/project/name.",
            )
        return str(entity)

    def version(
        self, entity: str, project: str, collection: str, selector: str
    ) -> ArtifactVersion | None:
        """Return one version (without files) by `vN` or alias, or None if there is none."""
        try:
            return as_version(self._artifact(entity, project, collection, selector))
        except NotFoundError:
            return None

    def files(self, version: ArtifactVersion) -> tuple[FileEntry, ...]:
        """Return the version's manifest."""
        artifact = self._pinned(version)
        with translated(f"read the manifest of {version.qualified_name}"):
            entries = list(artifact.manifest.entries.items())
            # Manifests of old clients leave sizes out; the server knows them.
            unsized = [p for p, entry in entries if entry.size is None and entry.ref is None]
            listed = artifact.files(names=unsized, per_page=_PAGE) if unsized else ()
            sizes = {str(file.name): int(file.size) for file in listed}
        return tuple(as_file(path, entry, sizes.get(path)) for path, entry in entries)

    def addresses(self, version: ArtifactVersion, paths: Sequence[str]) -> dict[str, str]:
        """Return path -> URL of its bytes; the URLs expire and are asked for again."""
        wanted = set(paths)
        artifact = self._pinned(version)
        with translated(f"ask where the files of {version.qualified_name} lie"):
            names = sorted(wanted) if len(wanted) <= _PAGE else None
            found = {
                str(file.name): str(file.direct_url)
                for file in artifact.files(names=names, per_page=_PAGE)
                if file.name in wanted and file.direct_url
            }
        missing = wanted - found.keys()
        if missing:
            raise UnavailableError(
                f"The server gives no address for {min(missing)!r} of {version.qualified_name}.",
                hint="Try again; if it stays so, the file is lost on the server.",
            )
        return found

    def collections(self, entity: str, project: str) -> list[Collection]:
        """List all collections of a project; empty when there is no such project."""
        api = self.api()
        try:
            with translated(f"list the artifacts of {entity}/{project}"):
                return [
                    _as_collection(collection)
                    for type_ in api.artifact_types(f"{entity}/{project}")
                    for collection in type_.collections(per_page=_PAGE)
                ]
        except NotFoundError:
            return []

    def versions(self, collection: Collection) -> list[ArtifactVersion]:
        """List the versions of a collection, newest first, without files."""
        path = f"{collection.entity}/{collection.project}/{collection.name}"
        api = self.api()
        with translated(f"list the versions of {path}"):
            return [as_version(a) for a in api.artifacts(collection.type, path, per_page=_PAGE)]

    def logged_by(self, version: ArtifactVersion) -> tuple[str, str] | None:
        """Return (id, display name) of the run that logged the version, when known."""
        run = self._run_of(version)
        if run is None:
            return None
        with translated(f"ask who logged {version.qualified_name}"):
            return (str(run.id), str(run.name))

    def inputs(self, version: ArtifactVersion) -> list[ArtifactVersion]:
        """List the versions that the run which logged `version` used, without files."""
        run = self._run_of(version)
        if run is None:
            return []
        with translated(f"ask what the run of {version.qualified_name} used"):
            return [as_version(artifact) for artifact in run.used_artifacts()]

    def _run_of(self, version: ArtifactVersion) -> Any:
        artifact = self._pinned(version)
        try:
            with translated(f"ask who logged {version.qualified_name}"):
                return artifact.logged_by()
        except NotFoundError:
            return None  # The run was deleted; the artifact outlives it.

    def logged_under(self, entity: str, project: str, display_name: str) -> list[Collection]:
        """List the collections that runs displayed as `display_name` logged into."""
        api = self.api()
        found: dict[str, Collection] = {}
        try:
            with translated(f"list the runs of {entity}/{project}"):
                for run in api.runs(f"{entity}/{project}", filters={"displayName": display_name}):
                    for artifact in run.logged_artifacts():
                        name = str(artifact.name).partition(":")[0]
                        found[name] = Collection(
                            artifact.entity, artifact.project, name, artifact.type
                        )
        except NotFoundError:
            return []
        return list(found.values())

    def move_alias(self, version: ArtifactVersion, alias: str) -> None:
        """Point `alias` at the version; W&B takes it from the version that had it."""
        artifact = self._pinned(version)
        with translated(f"move {alias!r} to {version.qualified_name}"):
            if alias not in artifact.aliases:
                artifact.aliases.append(alias)
                artifact.save()

    def runs(self, entity: str, project: str, job_type: str) -> list[RunRecord]:
        """List a project's runs of one job type, newest first."""
        api = self.api()
        with translated(f"list the runs of {entity}/{project}"):
            runs = api.runs(
                f"{entity}/{project}", filters={"jobType": job_type}, order="-created_at"
            )
            return [_as_run(run) for run in runs if run.job_type == job_type]

    @contextmanager
    def write_run(
        self, uses: ArtifactVersion, *, job_type: str, name: str, config: Mapping[str, Any]
    ) -> Iterator[RunHandle]:
        """Open a run that uses the version; it is finished when the block ends."""
        import wandb

        self.api()  # Fails early, with a plain error, when the key or the server is wrong.
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="runport-run-"))
            with translated(f"write the run {name!r}"):
                run = wandb.init(
                    entity=uses.entity,
                    project=uses.project,
                    job_type=job_type,
                    name=name,
                    config=dict(config),
                    dir=folder,
                    # A notebook's own run must stay the active one.
                    reinit="create_new",
                    settings=run_settings(self._settings),
                )
                run.use_artifact(uses.qualified_name)
            failed = True
            try:
                yield _WandbRun(run)
                failed = False
            finally:
                with translated(f"finish the run {name!r}"):
                    run.finish(exit_code=1 if failed else 0)

    def use_in_active_run(self, version: ArtifactVersion) -> bool:
        """Record in the caller's active run, if any, that it uses the version.

        Returns:
            Whether a run was active; without one nothing is imported or asked.
        """
        wandb = sys.modules.get("wandb")
        run = getattr(wandb, "run", None)
        if run is None:
            return False
        with translated(f"record the use of {version.qualified_name}"):
            run.use_artifact(version.qualified_name)
        return True

    def lineage(self, version: ArtifactVersion) -> Lineage:
        """Return the runs around a version, and what the one that logged it was made from."""
        artifact = self._pinned(version)
        with translated(f"ask for the lineage of {version.qualified_name}"):
            return as_lineage(artifact)

    def upload(self, what: Upload, existing: Sequence[ArtifactVersion]) -> Uploaded:
        """Log a folder's files as a version, unless one of `existing` has the same bytes."""
        return upload(self.api(), self._settings, what, existing)

    def _pinned(self, version: ArtifactVersion) -> Any:
        return self._artifact(version.entity, version.project, version.collection, version.version)

    def _artifact(self, entity: str, project: str, collection: str, selector: str) -> Any:
        name = f"{entity}/{project}/{collection}:{selector}"
        api = self.api()
        with translated(f"look up {name}"):
            return api.artifact(name)


class _WandbRun:
    def __init__(self, run: Any) -> None:
        self._run = run

    @property
    def url(self) -> str:
        return str(self._run.url)

    def summarize(self, values: Mapping[str, Any]) -> None:
        self._run.summary.update(dict(values))


def _as_collection(collection: Any) -> Collection:
    return Collection(collection.entity, collection.project, collection.name, collection.type)


def _as_run(run: Any) -> RunRecord:
    return RunRecord(
        id=str(run.id),
        name=str(run.name),
        url=str(run.url),
        created_at=str(run.created_at),
        config=dict(run.config),
        summary=dict(run.summary),
    )
