"""Logging a version through the SDK: one run of `job_type="upload"`, one artifact.

Beside `registry.hub`, which calls it, and the Trainer callback the only module that
imports the SDK.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.config import Settings
from registry.errors import IntegrityError, RegistryError
from registry.sdk_errors import translated
from registry.sdk_values import as_version
from registry.versions import ArtifactVersion

JOB_TYPE = "upload"


@dataclass(frozen=True, slots=True)
class Stamp:
    """How a file looked when its content was checked: `size_bytes` and `mtime_ns`."""

    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Upload:
    """What to log.

    Attributes:
        entity, project, collection, type: where, and the artifact's type.
        folder: the files lie here.
        files: path beneath the folder -> how it looked when it was checked.
        aliases: besides `latest`.
        metadata: JSON values.
        description: of the version, or None.
        from_run: `entity/project/id` of the run that made the files, or None.
        timeout_s: longest wait for the server to have everything.
        made_from: `entity/project/collection:vN` that the uploading run has as its input, or None.
        job_type: of the uploading run.
    """

    entity: str
    project: str
    collection: str
    type: str
    folder: Path
    files: Mapping[str, Stamp]
    aliases: tuple[str, ...]
    metadata: Mapping[str, Any]
    description: str | None
    from_run: str | None
    timeout_s: int
    made_from: str | None = None
    job_type: str = JOB_TYPE


@dataclass(frozen=True, slots=True)
class Uploaded:
    """What was logged.

    Attributes:
        version: the new version, or the one that had these bytes already.
        created: whether it is new.
        run_url: of the uploading run; None when nothing was uploaded.
        not_linked: why `from_run` could not be told of it; None when it could, or was not asked.
    """

    version: ArtifactVersion
    created: bool
    run_url: str | None
    not_linked: str | None = None


def run_settings(settings: Settings) -> Any:
    """Return the SDK's settings for a run of our own: quiet, and without facts of the machine."""
    import wandb

    values: dict[str, Any] = {
        "silent": True,
        "console": "off",
        "init_timeout": settings.api_timeout_s,
        "x_disable_stats": True,
        "x_disable_meta": True,
        "disable_git": True,
        "save_code": False,
    }
    if settings.base_url:
        values["base_url"] = settings.base_url
    return wandb.Settings(**values)


def upload(
    api: Any,
    settings: Settings,
    what: Upload,
    existing: Sequence[ArtifactVersion],
) -> Uploaded:
    """Log the files as a version, unless one of `existing` has the same digest.

    Args:
        api: the SDK's `Api`, logged in.
        settings: server and timeout.
        what: to log.
        existing: versions of the collection.

    Raises:
        IntegrityError: a file changed after it was checked; nothing was logged.
        AuthError, NotFoundError, UnavailableError: the server.
    """
    source = None
    if what.from_run is not None:
        with translated(f"look up the run {what.from_run}"):
            source = api.run(what.from_run)
    artifact = _draft(what)
    same = next((v for v in existing if v.digest == artifact.digest), None)
    if same is not None:
        return Uploaded(same, False, None, _link(api, source, same))
    version, run_url = _log(artifact, settings, what)
    known = {v.version for v in existing}
    return Uploaded(version, version.version not in known, run_url, _link(api, source, version))


def _draft(what: Upload) -> Any:
    import wandb

    with translated(f"prepare {what.collection}"):
        artifact = wandb.Artifact(
            name=what.collection,
            type=what.type,
            description=what.description,
            metadata=dict(what.metadata),
        )
        for path in what.files:
            # Uploaded from where it lies: no second copy on this disk.
            artifact.add_file(
                str(what.folder / path), name=path, policy="immutable", skip_cache=True
            )
    for path, stamp in what.files.items():
        status = (what.folder / path).stat()
        if Stamp(status.st_size, status.st_mtime_ns) != stamp:
            raise IntegrityError(
                f"{what.folder / path} changed while it was read.",
                hint="Nothing was logged. Wait until whatever writes it is done.",
            )
    return artifact


def _log(artifact: Any, settings: Settings, what: Upload) -> tuple[ArtifactVersion, str]:
    import wandb

    name = f"{what.entity}/{what.project}/{what.collection}"
    config = {"collection": name, "folder": what.folder.name, "from_run": what.from_run}
    if what.made_from is not None:
        config["made_from"] = what.made_from
    with ExitStack() as stack:
        # The SDK's own files of the run; gone when it is finished.
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="runport-run-"))
        with translated(f"log {name}"):
            run = wandb.init(
                entity=what.entity,
                project=what.project,
                job_type=what.job_type,
                name=f"{what.job_type} {what.collection}",
                config=config,
                dir=folder,
                reinit="create_new",
                settings=run_settings(settings),
            )
            failed = True
            try:
                if what.made_from is not None:
                    run.use_artifact(what.made_from)
                run.log_artifact(artifact, aliases=["latest", *what.aliases])
                artifact.wait(timeout=what.timeout_s)
                version = as_version(artifact)
                failed = False
            finally:
                run.finish(exit_code=1 if failed else 0)
    return version, str(run.url)


def _link(api: Any, source: Any, version: ArtifactVersion) -> str | None:
    """Record the version as output of the run that made it; say why that failed, if it did."""
    if source is None:
        return None
    try:
        with translated(f"record {version.qualified_name} as output of the run"):
            source.log_artifact(api.artifact(version.qualified_name))
    except RegistryError as error:
        # The version is logged; some servers keep the outputs of finished runs closed.
        return error.message
    return None
