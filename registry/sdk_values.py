"""The SDK's objects, as values of our own.

Reads public attributes only; imports no SDK.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

from registry.errors import IntegrityError
from registry.versions import ArtifactVersion, Digest, FileEntry


@dataclass(frozen=True, slots=True)
class RunLink:
    """A run that logged or used a version.

    Attributes:
        id, name, url: of the run.
        job_type: such as `train`, `promotion`, `inference`; empty when it has none.
    """

    id: str
    name: str
    url: str
    job_type: str


@dataclass(frozen=True, slots=True)
class Lineage:
    """What is around a version.

    Attributes:
        logged_by: the run that logged it; None when that is not known or was deleted.
        made_from: pinned names of what that run used.
        used_by: runs that used it.
    """

    logged_by: RunLink | None
    made_from: tuple[str, ...]
    used_by: tuple[RunLink, ...]


def as_lineage(artifact: Any) -> Lineage:
    """Return the runs around an SDK artifact."""
    run = artifact.logged_by()
    made_from = [str(used.qualified_name) for used in run.used_artifacts()] if run else []
    used_by = sorted((as_run_link(user) for user in artifact.used_by()), key=lambda one: one.name)
    return Lineage(as_run_link(run) if run else None, tuple(sorted(made_from)), tuple(used_by))


def as_run_link(run: Any) -> RunLink:
    """Return the facts of an SDK run that lineage shows."""
    return RunLink(str(run.id), str(run.name), str(run.url), str(run.job_type or ""))


def as_version(artifact: Any) -> ArtifactVersion:
    """Return the facts of an SDK artifact, without its files."""
    return ArtifactVersion(
        entity=artifact.entity,
        project=artifact.project,
        collection=str(artifact.name).partition(":")[0],
        version=artifact.version,
        digest=artifact.digest,
        type=artifact.type,
        aliases=tuple(artifact.aliases),
        metadata=dict(artifact.metadata or {}),
        created_at=artifact.created_at,
        size_bytes=int(artifact.size or 0),
    )


def as_file(path: str, entry: Any, known_size_bytes: int | None = None) -> FileEntry:
    """Return one entry of an SDK manifest.

    Args:
        path: in the version.
        entry: of the manifest.
        known_size_bytes: what the server says, where the manifest says nothing.

    Raises:
        IntegrityError: its digest is of an unknown kind or malformed, or nobody knows its size.
    """
    found = known_size_bytes if entry.size is None else entry.size
    if found is None and entry.ref is None:
        raise IntegrityError(
            f"Neither the manifest nor the server says how long {path!r} is.",
            hint="Log the artifact again.",
        )
    size_bytes = int(found or 0)
    if entry.ref is not None:
        return FileEntry(path, size_bytes, None, str(entry.ref), str(entry.digest or "") or None)
    # Entries hashed with MD5 carry no mark; others name their algorithm (SDK 0.29 and later).
    algorithm = str((entry.extra or {}).get("alg", "MD5")).lower()
    if algorithm not in {"md5", "xxh128"}:
        raise IntegrityError(
            f"{path!r} is hashed with {algorithm}, which this version cannot check.",
            hint="Update runport.",
        )
    try:
        digest = base64.b64decode(entry.digest, validate=True).hex()
    except (binascii.Error, ValueError) as error:
        raise IntegrityError(
            f"The manifest's digest of {path!r} is no digest: {entry.digest!r}.",
            hint="Log the artifact again.",
        ) from error
    return FileEntry(path, size_bytes, Digest(algorithm, digest))
