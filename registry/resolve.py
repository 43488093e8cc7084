"""From a name to one version, by asking the server.

Finds the collection (as written, else by the names of other eras), the version
(by number, alias, metric or step), and refuses what cannot be served. Fetches
no bytes and writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from registry.config import Settings
from registry.errors import IntegrityError, NotFoundError
from registry.hub import Collection, Hub
from registry.naming import (
    alias_step,
    choose_era,
    is_foreign_type,
    is_model_type,
    is_stub,
    metric_value,
    numeric_metrics,
    only_one,
    run_display_name,
    training_step,
    version_index,
    weights_version,
)
from registry.reference import ArtifactRef
from registry.selector import LATEST, Alias, Best, Selector, Step, Version
from registry.versions import ArtifactVersion

_LISTED = 8


@dataclass(frozen=True, slots=True)
class Place:
    """Where a name is looked up.

    Attributes:
        entity, project: after the settings' defaults were applied.
    """

    entity: str
    project: str


def place_of(ref: ArtifactRef, settings: Settings, hub: Hub) -> Place:
    """Return entity and project of a reference, asking for the account's entity if need be."""
    return Place(ref.entity or hub.default_entity(), ref.project or settings.project)


def resolve_version(hub: Hub, ref: ArtifactRef, place: Place) -> ArtifactVersion:
    """Return the version that the reference means, without files.

    Raises:
        NotFoundError: nothing answers to the name; the message says what there is.
        AmbiguousNameError: several collections do.
        IntegrityError: the version has another digest than the reference demands.
    """
    version = _find(hub, ref, place)
    _refuse_foreign(version)
    if is_stub(version):
        _refuse_stub(hub, version)
    by_version = ref.digest is not None and not ref.names_snapshot
    if by_version and not version.digest.startswith(ref.digest or ""):
        raise IntegrityError(
            f"{version.qualified_name} has the digest {version.digest}, not {ref.digest}.",
            hint="The name points at other bytes than you asked for.",
        )
    return version


def find_collection(hub: Hub, ref: ArtifactRef, place: Place) -> Collection:
    """Return the collection that the reference means, whatever its version.

    Raises:
        NotFoundError: there is none.
        AmbiguousNameError: there are several.
    """
    return _choose_collection(hub, ref, place, hub.collections(place.entity, place.project))


def _find(hub: Hub, ref: ArtifactRef, place: Place) -> ArtifactVersion:
    selector = _selector(ref)
    direct = isinstance(selector, Version | Alias)
    if direct:
        # One question answers nearly every pull.
        found = hub.version(place.entity, place.project, ref.collection, str(selector))
        if found is not None and not is_foreign_type(found.type):
            return found
    collection = find_collection(hub, ref, place)
    if direct and collection.name != ref.collection:
        found = hub.version(place.entity, place.project, collection.name, str(selector))
        if found is not None:
            return found
    return select(collection, hub.versions(collection), selector, ref.digest)


def _selector(ref: ArtifactRef) -> Selector | None:
    if ref.selector is None and ref.digest is not None and not ref.names_snapshot:
        return None
    return ref.selector or LATEST


def _choose_collection(
    hub: Hub, ref: ArtifactRef, place: Place, existing: Sequence[Collection]
) -> Collection:
    by_name = {collection.name: collection for collection in existing}
    chosen = choose_era(ref.collection, {c.name: c.type for c in existing})
    if chosen is not None:
        return by_name[chosen]
    shown = run_display_name(ref.collection)
    logged = {
        collection.name: collection
        for collection in hub.logged_under(place.entity, place.project, shown)
        if is_model_type(collection.type)
    }
    if logged:
        return logged[only_one(ref.collection, sorted(logged))]
    if ref.collection in by_name:
        return by_name[ref.collection]  # A dataset or a table; the refusal says so.
    raise _no_such_collection(ref, place, existing)


def _no_such_collection(
    ref: ArtifactRef, place: Place, existing: Sequence[Collection]
) -> NotFoundError:
    models = sorted(c.name for c in existing if is_model_type(c.type))
    shown = ", ".join(models[:_LISTED]) + (", …" if len(models) > _LISTED else "")
    where = f"{place.entity}/{place.project}"
    hint = f"There are: {shown}." if models else f"{where} holds no models."
    return NotFoundError(f"No artifact called {ref.collection!r} in {where}.", hint=hint)


def select(
    collection: Collection,
    versions: Sequence[ArtifactVersion],
    selector: Selector | None,
    digest: str | None = None,
) -> ArtifactVersion:
    """Choose among the versions of a collection; pure.

    Args:
        collection: for messages.
        versions: all of it.
        selector: which one; None chooses by `digest` alone.
        digest: prefix of a W&B digest.

    Raises:
        NotFoundError: none fits; the message says what there is.
    """
    if selector is None:
        found = [v for v in versions if digest and v.digest.startswith(digest)]
    elif isinstance(selector, Best):
        return best_version(collection, versions, selector)
    elif isinstance(selector, Step):
        trained = [v for v in versions if not is_stub(v)]
        # The checkpoint itself, rather than another version that was logged at the same step.
        found = [v for v in trained if alias_step(v) == selector.step]
        found = found or [v for v in trained if training_step(v) == selector.step]
    elif isinstance(selector, Version):
        found = [v for v in versions if v.version == str(selector)]
    else:
        found = [v for v in versions if selector.name in v.aliases]
    if not found:
        wanted = f"@{digest}" if selector is None else f":{selector}"
        raise NotFoundError(
            f"{collection.name} has no version {wanted}.", hint=_what_there_is(versions)
        )
    return max(found, key=version_index)


def best_version(
    collection: Collection, versions: Sequence[ArtifactVersion], best: Best
) -> ArtifactVersion:
    """Return the version with the best finite value of the metric; the earliest of equals.

    Raises:
        NotFoundError: no version with weights has the metric.
    """
    scored = [
        (value, v)
        for v in sorted(versions, key=version_index)
        if not is_stub(v) and (value := metric_value(v.metadata, best.metric)) is not None
    ]
    if not scored:
        metrics = sorted({key for v in versions for key in numeric_metrics(v.metadata)})
        hint = f"Metrics there: {', '.join(metrics[:_LISTED])}." if metrics else ""
        raise NotFoundError(
            f"No version of {collection.name} has a finite metric {best.metric!r}.", hint=hint
        )
    choose = max if best.effective_mode == "max" else min
    return choose(scored, key=lambda pair: pair[0])[1]


def _what_there_is(versions: Sequence[ArtifactVersion]) -> str:
    names = [
        v.version + (f" ({', '.join(v.aliases)})" if v.aliases else "") for v in versions[:_LISTED]
    ]
    return f"There are: {', '.join(names)}." if names else "It has no versions."


def _refuse_foreign(version: ArtifactVersion) -> None:
    if is_foreign_type(version.type):
        raise NotFoundError(
            f"{version.qualified_name} is a {version.type}, not a model.",
            hint="`registry list` shows the models of the project.",
        )


def _refuse_stub(hub: Hub, version: ArtifactVersion) -> None:
    collection = Collection(version.entity, version.project, version.collection, version.type)
    other = weights_version(hub.versions(collection))
    hint = (
        f"The trained weights are {other.short_name}."
        if other is not None
        else "No version with weights was logged; train with WANDB_LOG_MODEL=end, or with "
        "registry.RunportCallback."
    )
    raise NotFoundError(
        f"{version.short_name} is the architecture stub that the Trainer logs when it starts; "
        "it has no weights.",
        hint=hint,
    )
