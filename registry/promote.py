"""Promotion: moving a W&B alias, by evidence or by name, and the history of it.

The alias is the truth of what is live, and nothing else is. Each move is also
a W&B run of `job_type="promotion"` that says from, to, alias, metric, values and
reason, and uses the chosen version: that is the history.

The run is opened before the move and finished after it, so that no move goes
unrecorded; a move that did not happen leaves a failed run that says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.config import Settings
from registry.errors import GateRefusedError, NotFoundError, UnavailableError, UsageError
from registry.hub import PROMOTION_JOB_TYPE, Collection
from registry.lookup import open_hub
from registry.naming import is_stub, metric_value, version_index
from registry.reference import ArtifactRef, parse_artifact
from registry.resolve import Place, best_version, find_collection, place_of, resolve_version
from registry.selector import Best, check_alias, parse_selector
from registry.selector import Version as VersionSelector
from registry.versions import ArtifactVersion

if TYPE_CHECKING:
    from registry.hub import Hub, RunRecord

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Candidate:
    """A version as the comparison saw it.

    Attributes:
        version: `v3`.
        value: its metric, or None.
        excluded: why it was left out, or None.
    """

    version: str
    value: float | None
    excluded: str | None = None


@dataclass(frozen=True, slots=True)
class Promotion:
    """What was, or with `dry_run` would be, done.

    Attributes:
        collection: `entity/project/name`.
        alias: what moves.
        from_version, to_version: `v2`, `v3`; `from_version` is None for a new alias.
        moved: whether the alias was moved now.
        dry_run: whether it was only asked what would be done.
        metric, mode: by what it was chosen; None when by name.
        from_value, to_value: the metric's values.
        candidates: what was compared.
        reason: as given.
        run_url: the promotion's run, when one was written.
    """

    collection: str
    alias: str
    from_version: str | None
    to_version: str
    moved: bool
    dry_run: bool = False
    metric: str | None = None
    mode: str | None = None
    from_value: float | None = None
    to_value: float | None = None
    candidates: tuple[Candidate, ...] = ()
    reason: str | None = None
    run_url: str | None = None


@dataclass(frozen=True, slots=True)
class _Move:
    """An alias on its way from one version to another."""

    collection: Collection
    alias: str
    source: ArtifactVersion | None
    target: ArtifactVersion
    reason: str | None
    kind: str = "promote"
    best: Best | None = None
    candidates: tuple[Candidate, ...] = ()

    def value_of(self, version: ArtifactVersion | None) -> float | None:
        if self.best is None or version is None:
            return None
        return metric_value(version.metadata, self.best.metric)

    def outcome(
        self, *, moved: bool, dry_run: bool = False, run_url: str | None = None
    ) -> Promotion:
        c = self.collection
        return Promotion(
            collection=f"{c.entity}/{c.project}/{c.name}",
            alias=self.alias,
            from_version=self.source.version if self.source else None,
            to_version=self.target.version,
            moved=moved,
            dry_run=dry_run,
            metric=self.best.metric if self.best else None,
            mode=self.best.effective_mode if self.best else None,
            from_value=self.value_of(self.source),
            to_value=self.value_of(self.target),
            candidates=self.candidates,
            reason=self.reason,
            run_url=run_url,
        )

    def config(self) -> dict[str, Any]:
        p = self.outcome(moved=True)
        values = {c.version: c.value for c in self.candidates if c.excluded is None}
        return {
            "format": _FORMAT,
            "kind": self.kind,
            "collection": p.collection,
            "alias": p.alias,
            "from": p.from_version,
            "to": p.to_version,
            "metric": p.metric,
            "mode": p.mode,
            "from_value": p.from_value,
            "to_value": p.to_value,
            "values": values,
            "reason": p.reason,
        }


def promote(
    reference: str,
    alias: str,
    *,
    by: str | None = None,
    mode: str | None = None,
    min_improvement: float | None = None,
    reason: str | None = None,
    dry_run: bool = False,
    settings: Settings | None = None,
    hub: Hub | None = None,
) -> Promotion:
    """Move an alias to the best version by a metric, or to a version by name.

    Args:
        reference: a collection (with `by`), or one version of it (without).
        alias: what to move, such as `best` or `production`.
        by: metric in the versions' metadata, such as `eval/f1`.
        mode: `max` or `min`; default by the Trainer's rule: `min` for names ending in `loss`.
        min_improvement: refuse a smaller gain over the version that has the alias now.
        reason: kept in the history.
        dry_run: compare and say, change nothing.
        settings: default: from the environment.
        hub: default: W&B through its SDK.

    Returns:
        What was done; `moved` is False when the alias was there already.

    Raises:
        GateRefusedError: the gain is too small; nothing was changed.
        NotFoundError: no such collection or version, or none with the metric.
        UnavailableError: somebody else moved the alias at the same time.
    """
    settings = settings or Settings.from_environment()
    ref = parse_artifact(reference)
    _check_request(ref, alias, by, mode, min_improvement)
    hub = hub or open_hub(settings)
    place = place_of(ref, settings, hub)
    if by is not None:
        move = _by_metric(hub, ref, place, alias, Best(by, mode), reason)
        _check_gain(move, min_improvement)
    else:
        move = _by_name(hub, ref, place, alias, reason)
    return _carry_out(hub, move, dry_run)


def rollback(
    reference: str,
    alias: str,
    *,
    reason: str | None = None,
    dry_run: bool = False,
    settings: Settings | None = None,
    hub: Hub | None = None,
) -> Promotion:
    """Return an alias to the version that it left with its last recorded move.

    A rollback of a rollback goes one move further back, not forth again.

    Raises:
        NotFoundError: no move of the alias is recorded, or the version is gone.
        UnavailableError: somebody else moved the alias at the same time.
    """
    settings = settings or Settings.from_environment()
    ref = parse_artifact(reference)
    check_alias(alias)
    hub = hub or open_hub(settings)
    collection = find_collection(hub, ref, place_of(ref, settings, hub))
    versions = {v.version: v for v in hub.versions(collection)}
    current = _holder(versions.values(), alias)
    previous = previous_target(history(hub, collection, alias), current)
    if previous is None:
        raise NotFoundError(
            f"No earlier version of {collection.name} is recorded for {alias!r}.",
            hint=f"Move it by name: registry promote {collection.name}:vN {alias}",
        )
    if previous not in versions:
        raise NotFoundError(
            f"{collection.name}:{previous}, which {alias!r} left, is no longer there.",
            hint=f"Move it by name: registry promote {collection.name}:vN {alias}",
        )
    move = _Move(collection, alias, current, versions[previous], reason, kind="rollback")
    return _carry_out(hub, move, dry_run)


def history(hub: Hub, collection: Collection, alias: str) -> list[RunRecord]:
    """Return the recorded moves of an alias that took place, newest first."""
    name = f"{collection.entity}/{collection.project}/{collection.name}"
    return [
        run
        for run in hub.runs(collection.entity, collection.project, PROMOTION_JOB_TYPE)
        if run.config.get("collection") == name
        and run.config.get("alias") == alias
        and run.summary.get("outcome") == "moved"
    ]


def previous_target(moves: Sequence[RunRecord], current: ArtifactVersion | None) -> str | None:
    """Return the version that the alias pointed at before its present target; pure.

    Args:
        moves: newest first.
        current: where the alias points now.

    Rollbacks are undone in the account, so that two in a row go two moves back.
    """
    stack: list[str] = []
    for run in reversed(moves):
        source, target = run.config.get("from"), run.config.get("to")
        if run.config.get("kind") == "rollback":
            while stack and stack[-1] != target:
                stack.pop()
            continue
        if source and (not stack or stack[-1] != source):
            stack.append(str(source))
        if target:
            stack.append(str(target))
    while stack and current is not None and stack[-1] == current.version:
        stack.pop()
    return stack[-1] if stack else None


def _check_request(
    ref: ArtifactRef, alias: str, by: str | None, mode: str | None, gain: float | None
) -> None:
    check_alias(alias)
    if isinstance(parse_selector(alias), VersionSelector) or alias == "latest":
        raise UsageError(
            f"{alias!r} cannot be moved: W&B keeps it itself.", hint="Choose another alias."
        )
    if by is None and (mode is not None or gain is not None):
        raise UsageError("--mode and --min-improvement need --by.", hint="Add --by METRIC.")
    if by is None and ref.selector is None and ref.digest is None:
        raise UsageError(
            f"{ref} names no version.", hint=f"Write {ref}:v3, or choose one with --by METRIC."
        )
    if by is not None and ref.selector is not None:
        raise UsageError(
            f"{ref} names one version, and --by chooses one.", hint="Leave out one of the two."
        )
    if mode not in {None, "max", "min"}:
        raise UsageError(f"{mode!r} is neither max nor min.", hint="Use --mode max or min.")


def _by_metric(
    hub: Hub, ref: ArtifactRef, place: Place, alias: str, best: Best, reason: str | None
) -> _Move:
    collection = find_collection(hub, ref, place)
    versions = hub.versions(collection)
    target = best_version(collection, versions, best)
    candidates = tuple(_candidate(v, best.metric) for v in sorted(versions, key=version_index))
    return _Move(
        collection,
        alias,
        _holder(versions, alias),
        target,
        reason,
        best=best,
        candidates=candidates,
    )


def _candidate(version: ArtifactVersion, metric: str) -> Candidate:
    if is_stub(version):
        return Candidate(version.version, None, "a stub without weights")
    value = metric_value(version.metadata, metric)
    return Candidate(version.version, value, None if value is not None else "no finite value")


def _by_name(hub: Hub, ref: ArtifactRef, place: Place, alias: str, reason: str | None) -> _Move:
    target = resolve_version(hub, ref, place)
    collection = Collection(target.entity, target.project, target.collection, target.type)
    source = hub.version(target.entity, target.project, target.collection, alias)
    return _Move(collection, alias, source, target, reason)


def _holder(versions: Any, alias: str) -> ArtifactVersion | None:
    return next((v for v in versions if alias in v.aliases), None)


def _check_gain(move: _Move, min_improvement: float | None) -> None:
    before, after = move.value_of(move.source), move.value_of(move.target)
    if min_improvement is None or before is None or after is None or move.best is None:
        return
    same = move.source is not None and move.source.version == move.target.version
    gain = after - before if move.best.effective_mode == "max" else before - after
    if not same and gain < min_improvement:
        raise GateRefusedError(
            f"{move.target.short_name} improves {move.best.metric} by {gain:.6g} over "
            f"{move.source.short_name if move.source else ''}; {min_improvement:.6g} is demanded.",
            hint=f"{move.alias!r} stays where it is.",
        )


def _carry_out(hub: Hub, move: _Move, dry_run: bool) -> Promotion:
    if move.source is not None and move.source.version == move.target.version:
        return move.outcome(moved=False, dry_run=dry_run)
    if dry_run:
        return move.outcome(moved=False, dry_run=True)
    name = f"{move.kind} {move.alias} to {move.target.short_name}"
    with hub.write_run(
        move.target, job_type=PROMOTION_JOB_TYPE, name=name, config=move.config()
    ) as run:
        try:
            _move_alias(hub, move)
        except BaseException as error:
            run.summarize({"outcome": "not moved", "error": str(error)})
            raise
        run.summarize({"outcome": "moved"})
        url = run.url
    return move.outcome(moved=True, run_url=url)


def _move_alias(hub: Hub, move: _Move) -> None:
    where = move.collection
    expected = move.source.version if move.source else None
    now = _points_at(hub, where, move.alias)
    if now != expected:
        raise UnavailableError(
            f"{move.alias!r} moved from {expected} to {now} in the meantime.",
            hint="Nothing was changed. Look again, then promote again.",
        )
    hub.move_alias(move.target, move.alias)
    after = _points_at(hub, where, move.alias)
    if after != move.target.version:
        raise UnavailableError(
            f"{move.alias!r} points at {after} instead of {move.target.version}: "
            "somebody else moved it at the same time.",
            hint="Look at the promotion runs, then promote again.",
        )


def _points_at(hub: Hub, where: Collection, alias: str) -> str | None:
    version = hub.version(where.entity, where.project, where.name, alias)
    return version.version if version else None
