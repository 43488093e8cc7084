"""Push: from a folder to a version on the server, with the same rules as for a pull.

Files are looked at before anything is sent: what a pull would refuse is not
uploaded, and what serving does not need is left out unless it is asked for. The
same bytes are never uploaded twice: the version that has them is named instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.config import Settings
from registry.content import Selection, Skipped, check_content, plan_files
from registry.errors import NotFoundError, UsageError
from registry.hub import Collection
from registry.local import folder_entries
from registry.lookup import open_hub
from registry.reference import ArtifactRef, parse_artifact
from registry.resolve import Place, place_of
from registry.sdk_upload import JOB_TYPE, Stamp, Upload, Uploaded
from registry.selector import Alias, check_alias, parse_selector
from registry.store.durable import storage_errors
from registry.versions import ArtifactVersion

if TYPE_CHECKING:
    from registry.hub import Hub

DEFAULT_TYPE = "model"
DEFAULT_TIMEOUT_S = 3600
_COLLECTION_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")


@dataclass(frozen=True, slots=True)
class PushedFile:
    """One file of a pushed version: `path` and `size_bytes`."""

    path: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push did.

    Attributes:
        name: `entity/project/collection:vN`; with `dry_run` the collection alone.
        created: whether a new version was made; False when one had these bytes already.
        digest: the version's own digest; empty with `dry_run`.
        aliases: that point at it now.
        run_url: of the run that uploaded it, if any did.
        from_run: the run that it is now an output of, or None.
        warnings: what could not be done, in sentences.
        files: what the version holds.
        skipped: what was left out, and why.
        dry_run: nothing was changed.
    """

    name: str
    created: bool
    digest: str
    aliases: tuple[str, ...]
    run_url: str | None
    from_run: str | None
    warnings: tuple[str, ...]
    files: tuple[PushedFile, ...]
    skipped: tuple[Skipped, ...]
    dry_run: bool

    @property
    def size_bytes(self) -> int:
        """Total of all files."""
        return sum(file.size_bytes for file in self.files)


@dataclass(frozen=True, slots=True)
class Facts:
    """What is said about a version that is pushed.

    Attributes:
        type: the artifact's type; a collection has one type.
        aliases: besides `latest`.
        metadata: JSON values, such as metrics.
        description: of the version, or None.
        from_run: id, or `entity/project/id`, of the run that made the files, or None.
        made_from: version that the files were made from, `entity/project/collection:vN`, or None;
            the run that uploads them has it as its input.
        job_type: of the run that uploads them.
    """

    type: str = DEFAULT_TYPE
    aliases: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    description: str | None = None
    from_run: str | None = None
    made_from: str | None = None
    job_type: str = JOB_TYPE


def push(
    folder: Path,
    name: str,
    facts: Facts | None = None,
    *,
    selection: Selection | None = None,
    dry_run: bool = False,
    timeout_s: int = DEFAULT_TIMEOUT_S,
    settings: Settings | None = None,
    hub: Hub | None = None,
) -> Pushed:
    """Log a folder's files as a version of a collection.

    Args:
        folder: with the files; links in it are not followed.
        name: `[entity/][project/]collection`.
        facts: default: a model without aliases or metadata.
        selection: which files; default: those needed to serve.
        dry_run: check and say; log nothing.
        timeout_s: longest wait for the server to have everything.
        settings: default: from the environment.
        hub: default: W&B through its SDK.

    Raises:
        UsageError: the name, an alias, or another type than the collection's.
        NotFoundError: no such folder or run, or nothing in it to push.
        UnsafeContentError, IntegrityError: files that Runport does not touch; nothing was sent.
        AuthError, UnavailableError: the server.
    """
    settings, facts = settings or Settings.from_environment(), facts or Facts()
    ref = _target(name)
    for alias in facts.aliases:
        _check_alias(alias)
    folder = folder.expanduser().absolute()
    files, skipped = _check_files(folder, selection or Selection())
    hub = hub or open_hub(settings)
    place = place_of(ref, settings, hub)
    existing = _existing(hub, place, ref.collection, facts.type)
    plan = Pushed(
        name=f"{place.entity}/{place.project}/{ref.collection}",
        created=False,
        digest="",
        aliases=facts.aliases,
        run_url=None,
        from_run=_run_path(facts.from_run, place),
        warnings=(),
        files=tuple(PushedFile(path, stamp.size_bytes) for path, stamp in files.items()),
        skipped=skipped,
        dry_run=dry_run,
    )
    if dry_run:
        return plan
    what = Upload(
        place.entity, place.project, ref.collection, facts.type, folder, files, facts.aliases,
        _with_source(facts.metadata, plan.from_run), facts.description, plan.from_run, timeout_s,
        facts.made_from, facts.job_type,
    )  # fmt: skip
    return _outcome(hub, plan, hub.upload(what, existing), facts)


def _outcome(hub: Hub, plan: Pushed, done: Uploaded, facts: Facts) -> Pushed:
    warnings = [done.not_linked] if done.not_linked else []
    version = done.version
    if not done.created:
        version = _add_aliases(hub, version, facts.aliases)
        if facts.metadata or facts.description:
            warnings.append(
                f"{version.short_name} had these bytes already; its metadata and description "
                "stay as they are."
            )
    return replace(
        plan,
        name=version.qualified_name,
        created=done.created,
        digest=version.digest,
        aliases=version.aliases,
        run_url=done.run_url,
        from_run=None if done.not_linked else plan.from_run,
        warnings=tuple(warnings),
    )


def _target(name: str) -> ArtifactRef:
    ref = parse_artifact(name)
    if ref.selector is not None or ref.digest is not None:
        raise UsageError(
            f"{name!r} names a version; the server numbers versions itself.",
            hint="Write [entity/][project/]name, and aliases with --alias.",
        )
    wrong = sorted(set(ref.collection) - _COLLECTION_CHARS)
    if wrong:
        raise UsageError(
            f"{ref.collection!r} cannot be the name of an artifact: W&B refuses {wrong[0]!r}.",
            hint="Use letters, digits, dashes, underscores and dots.",
        )
    return ref


def _check_alias(alias: str) -> None:
    check_alias(alias)
    if not isinstance(parse_selector(alias), Alias):
        raise UsageError(
            f"{alias!r} cannot be an alias: it reads as a version.", hint="Choose another alias."
        )


def _check_files(
    folder: Path, selection: Selection
) -> tuple[dict[str, Stamp], tuple[Skipped, ...]]:
    if not folder.is_dir():
        raise NotFoundError(f"There is no folder {folder}.", hint="Name a folder with a model.")
    plan = plan_files(str(folder), folder_entries(folder), selection)
    if not plan.wanted:
        raise NotFoundError(
            f"{folder} holds no file to push.",
            hint="Links are not followed. --all takes what serving does not need as well.",
        )
    stamps: dict[str, Stamp] = {}
    for entry in plan.wanted:
        path = folder / entry.path
        with storage_errors(f"read {path}"):
            status = path.stat()
            stamps[entry.path] = Stamp(status.st_size, status.st_mtime_ns)
            check_content(str(folder), entry.path, path)
    return stamps, plan.skipped


def _existing(hub: Hub, place: Place, collection: str, type_: str) -> list[ArtifactVersion]:
    same = [c for c in hub.collections(place.entity, place.project) if c.name == collection]
    for other in same:
        if other.type != type_:
            raise UsageError(
                f"{collection} holds artifacts of type {other.type!r}, not {type_!r}.",
                hint=f"Choose another name, or --type {other.type}.",
            )
    return hub.versions(Collection(place.entity, place.project, collection, type_)) if same else []


def _run_path(run: str | None, place: Place) -> str | None:
    if run is None:
        return None
    parts = run.strip("/").split("/")
    if len(parts) > 3 or not all(parts):
        raise UsageError(f"{run!r} is not a run.", hint="Write its id, or entity/project/id.")
    return "/".join([place.entity, place.project][: 3 - len(parts)] + parts)


def _with_source(metadata: Mapping[str, Any], source: str | None) -> dict[str, Any]:
    return {**({"from_run": source} if source else {}), **metadata}


def _add_aliases(hub: Hub, version: ArtifactVersion, aliases: Sequence[str]) -> ArtifactVersion:
    missing = [alias for alias in aliases if alias not in version.aliases]
    for alias in missing:
        hub.move_alias(version, alias)
    if not missing:
        return version
    now = hub.version(version.entity, version.project, version.collection, version.version)
    return now or version
