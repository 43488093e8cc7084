"""What a tuning would measure, without measuring or making anything."""

from __future__ import annotations

from dataclasses import dataclass

import registry
from serving.config import available_cores
from serving.prepare.engine import CHECKED, EXPORT_FILE
from serving.tune.contenders import (
    NAMED_ONLY,
    REFERENCE,
    TORCH,
    Version,
    layouts,
    why_no_torch,
)
from serving.tune.tune import TuneRequest, version_of


@dataclass(frozen=True, slots=True)
class Planned:
    """What would become of one candidate.

    Attributes:
        name: `engine/precision`.
        state: `is exported`, `would be exported`, or why it cannot take part.
        layouts: in which it would be timed; empty if it cannot take part.
    """

    name: str
    state: str
    layouts: tuple[str, ...]


def plan(request: TuneRequest) -> list[Planned]:
    """Return what `tune` would do with each candidate.

    Raises:
        UsageError: the request cannot be met.
        RegistryError: the version cannot be read.
    """
    version = version_of(request)
    ways = tuple(layout.words for layout in layouts(available_cores()))
    own = _own(version)
    planned = []
    for candidate in registry.CANDIDATES:
        if request.named and candidate.name not in (*request.named, REFERENCE):
            continue
        obstacle = registry.why_unusable(candidate)
        found = registry.find_export(
            version.exports_dir,
            version.digest,
            version.task,
            candidate.precision,
            candidate.engine,
            verify=False,
        )
        itself = (candidate.engine, candidate.precision) == own
        state = obstacle or ("is exported" if found or itself else "would be exported")
        if not obstacle and candidate.name in NAMED_ONLY and candidate.name not in request.named:
            state += f"; {NAMED_ONLY[candidate.name]}"
        planned.append(Planned(candidate.name, state, () if obstacle else ways))
    if not request.named or TORCH in request.named:
        obstacle = why_no_torch(version)
        planned.append(Planned(TORCH, obstacle or "needs no export", () if obstacle else ways))
    return planned


def _own(version: Version) -> tuple[str, str] | None:
    """Return engine and precision of a version that is an export itself."""
    if not (version.path / EXPORT_FILE).is_file():
        return None
    marks_dir = version.exports_dir / CHECKED
    export = registry.check_export(version.path, marks_dir=marks_dir, digest=version.digest)
    return export.engine, export.precision
