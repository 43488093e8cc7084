"""What a tuning would measure, without measuring or making anything."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import registry
from serving.config import available_cores
from serving.tune.contenders import NAMED_ONLY, REFERENCE, TORCH, layouts
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
        state = obstacle or ("is exported" if found else "would be exported")
        if not obstacle and candidate.name in NAMED_ONLY and candidate.name not in request.named:
            state += f"; {NAMED_ONLY[candidate.name]}"
        planned.append(Planned(candidate.name, state, () if obstacle else ways))
    if not request.named or TORCH in request.named:
        missing = [m for m in ("torch", "transformers") if importlib.util.find_spec(m) is None]
        state = f"{', '.join(missing)} is not installed" if missing else "needs no export"
        planned.append(Planned(TORCH, state, () if missing else ways))
    return planned
