"""What the server has: one version with its files, or collections with their versions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from registry.config import Settings
from registry.errors import OfflineError
from registry.hub import Collection, WandbHub
from registry.naming import is_model_type
from registry.reference import ArtifactRef, parse_artifact
from registry.resolve import Place, find_collection, place_of, resolve_version
from registry.versions import ArtifactVersion

if TYPE_CHECKING:
    from registry.hub import Hub


@dataclass(frozen=True, slots=True)
class Listing:
    """A collection and its versions, newest first, without files."""

    collection: Collection
    versions: tuple[ArtifactVersion, ...]


@dataclass(frozen=True, slots=True)
class LoggedByRun:
    """The versions of a collection that one run logged, newest first.

    Attributes:
        run_id, run_name: None when it is not known who logged them. Names are not unique.
        versions: at least one.
    """

    run_id: str | None
    run_name: str | None
    versions: tuple[ArtifactVersion, ...]


def open_hub(settings: Settings) -> Hub:
    """Return the hub that the settings name.

    Raises:
        OfflineError: offline mode forbids asking a server.
    """
    if settings.offline:
        raise OfflineError(
            "The server has to be asked, but offline mode forbids it.",
            hint="Unset RUNPORT_OFFLINE.",
        )
    return WandbHub(settings)


def resolve(
    reference: str, *, settings: Settings | None = None, hub: Hub | None = None
) -> ArtifactVersion:
    """Ask the server which version a name means, with its files and the run that logged it.

    Raises:
        RegistryError: as for `pull`; nothing is fetched.
    """
    settings = settings or Settings.from_environment()
    hub = hub or open_hub(settings)
    version = locate(reference, settings=settings, hub=hub)
    run = hub.logged_by(version)
    run_id, run_name = run or (None, None)
    return replace(version, files=hub.files(version), run_id=run_id, run_name=run_name)


def locate(
    reference: str, *, settings: Settings | None = None, hub: Hub | None = None
) -> ArtifactVersion:
    """Ask the server which version a name means, and nothing more: one question as a rule.

    Raises:
        RegistryError: as for `resolve`.
    """
    settings = settings or Settings.from_environment()
    ref = parse_artifact(reference)
    hub = hub or open_hub(settings)
    return resolve_version(hub, ref, place_of(ref, settings, hub))


def list_collection(
    reference: str, *, settings: Settings | None = None, hub: Hub | None = None
) -> Listing:
    """List the versions of the collection that a name means; its selector plays no part.

    Raises:
        NotFoundError, AmbiguousNameError: the name.
        AuthError, UnavailableError: the server.
    """
    settings = settings or Settings.from_environment()
    ref = parse_artifact(reference)
    hub = hub or open_hub(settings)
    collection = find_collection(hub, ref, place_of(ref, settings, hub))
    return Listing(collection, tuple(hub.versions(collection)))


def group_by_run(versions: Sequence[ArtifactVersion], hub: Hub) -> tuple[LoggedByRun, ...]:
    """Ask who logged each version; return the groups in order of their newest version.

    Runs of the same display name share a collection, so that `v4` may come from another training
    than `v3`. Asks once or more for each version: pass those that are shown.

    Raises:
        AuthError, UnavailableError: the server.
    """
    groups: dict[tuple[str | None, str | None], list[ArtifactVersion]] = {}
    for version in versions:
        groups.setdefault(hub.logged_by(version) or (None, None), []).append(version)
    return tuple(LoggedByRun(*run, tuple(found)) for run, found in groups.items())


def list_project(
    project: str | None, *, settings: Settings | None = None, hub: Hub | None = None
) -> list[Listing]:
    """List the model-like collections of `[entity/]project` (default: the settings').

    Raises:
        InvalidReferenceError: the text names no project.
        AuthError, UnavailableError: the server.
    """
    settings = settings or Settings.from_environment()
    hub = hub or open_hub(settings)
    place = _project_place(project, settings, hub)
    models = [c for c in hub.collections(place.entity, place.project) if is_model_type(c.type)]
    return [Listing(c, tuple(hub.versions(c))) for c in sorted(models, key=lambda c: c.name)]


def _project_place(project: str | None, settings: Settings, hub: Hub) -> Place:
    if project is None:
        return place_of(ArtifactRef("_"), settings, hub)
    # `a/b` is parsed as project and collection, which are entity and project here.
    ref = parse_artifact(project)
    return Place(ref.project or hub.default_entity(), ref.collection)
