"""Who may take part: the candidates that this machine can run, each in several layouts."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import registry
from serving.config import CoreLimits
from serving.prepare.engine import EXPORT_FILE, TORCH_MODULES

TORCH = "torch/fp32"
REFERENCE = registry.CANDIDATES[0].name
"""What all others are compared with, where there is a valid export of it; else torch is."""

NAMED_ONLY = {
    "onnx/int8-dynamic": "its scales come from whatever shares a batch; chosen only when named"
}
"""Candidates that are never chosen unless they are asked for by name, and why."""

_MOST_LAYOUTS = 4
_LOOSEST_DEFAULT_BUDGET = 0.01  # What an export's own gate allows when nothing is said.


@dataclass(frozen=True, slots=True)
class Contender:
    """A candidate that is on disk and can be started, in one layout.

    Attributes:
        engine, precision: what runs it, how.
        directory: what its worker loads.
        task: what it answers.
        export_key: of its export; empty for torch, and where the version itself is the export.
        batch_invariant: as declared; measured as well.
        exactness: position among candidates that are as fast: the exact ones come first.
        layout: how it uses the cores.
    """

    engine: str
    precision: str
    directory: Path
    task: str
    export_key: str
    batch_invariant: bool
    exactness: int
    layout: registry.TuningLayout

    @property
    def name(self) -> str:
        """`engine/precision`."""
        return f"{self.engine}/{self.precision}"

    @property
    def title(self) -> str:
        """Name and layout."""
        return f"{self.name} {self.layout.words}"

    def limits(self) -> CoreLimits:
        """Batching and queue of its worker."""
        return CoreLimits(slots=self.layout.slots, max_batch_rows=self.layout.max_batch_rows)

    def alone(self) -> Contender:
        """The same, each row by itself: with no batch-mates nothing depends on them."""
        layout = self.layout
        return replace(self, layout=registry.TuningLayout(layout.engine_threads, layout.slots, 1))


@dataclass(frozen=True, slots=True)
class Absent:
    """A candidate that cannot take part, and why."""

    engine: str
    precision: str
    reason: str


@dataclass(frozen=True, slots=True)
class Field:
    """All that were looked at.

    Attributes:
        contenders: one for each candidate, in the default layout; the first is the reference.
        absent: the others.
    """

    contenders: tuple[Contender, ...]
    absent: tuple[Absent, ...]


@dataclass(frozen=True, slots=True)
class Version:
    """The version that is tuned.

    Attributes:
        path: its snapshot's folder.
        digest: of it.
        task: what it answers.
        exports_dir: where exports are kept.
        max_tokens: its longest input.
        samples: texts that exports are calibrated on; None for the version's own.
        budget: largest share of answers that may differ.
    """

    path: Path
    digest: str
    task: str
    exports_dir: Path
    max_tokens: int
    samples: Path | None
    budget: float


def candidate_names() -> tuple[str, ...]:
    """Return the names of all candidates, as `--candidate` takes them."""
    return (*(candidate.name for candidate in registry.CANDIDATES), TORCH)


def layouts(cores: int) -> list[registry.TuningLayout]:
    """Return the ways to share the cores: threads of one batch, times batches at once.

    The first is the default, one thread each; of many divisors the widest spread is kept.
    """
    divisors = [threads for threads in range(1, cores + 1) if cores % threads == 0]
    while len(divisors) > _MOST_LAYOUTS:
        divisors.pop(len(divisors) // 2)
    rows = CoreLimits().max_batch_rows
    return [registry.TuningLayout(threads, cores // threads, rows) for threads in divisors]


def gather_field(
    version: Version, named: Sequence[str], cores: int, say: Callable[[str], None]
) -> Field:
    """Find or make what each candidate needs; those that cannot take part say why.

    Args:
        version: what is tuned.
        named: candidates that were asked for; none for all. The reference always takes part.
        cores: that a worker may use.
        say: told of what is made.

    Raises:
        RegistryError: there is nothing to compare with.
    """
    default = layouts(cores)[0]
    found: list[Contender] = []
    absent: list[Absent] = []
    for number, candidate in enumerate(registry.CANDIDATES):
        is_reference = number == 0
        if named and candidate.name not in named and not is_reference:
            continue
        one = _exported(version, candidate, number, default, say)
        if isinstance(one, Absent):
            absent.append(one)
        else:
            found.append(one)
    reference_missing = not found or found[0].name != REFERENCE
    if reference_missing or not named or TORCH in named:
        obstacle = why_no_torch(version)
        if obstacle:
            absent.append(Absent("torch", "fp32", obstacle))
        else:
            torch = Contender(
                "torch", "fp32", version.path, version.task, "", True, len(found), default
            )
            found.insert(0 if reference_missing else len(found), torch)
    if not found or found[0].name not in (REFERENCE, TORCH):
        reasons = "; ".join(f"{one.engine}/{one.precision}: {one.reason}" for one in absent)
        raise registry.ExportError(
            f"There is nothing in fp32 to compare with ({reasons}).",
            hint="Install runport[export], or run `registry export` where it is installed.",
        )
    return Field(tuple(found), tuple(absent))


def why_no_torch(version: Version) -> str:
    """Return why torch cannot serve the version here; empty when it can."""
    if (version.path / EXPORT_FILE).is_file():
        return "the version is an export and has no weights for torch"
    missing = [name for name in TORCH_MODULES if importlib.util.find_spec(name) is None]
    return f"{', '.join(missing)} is not installed" if missing else ""


def _exported(
    version: Version,
    candidate: registry.Candidate,
    number: int,
    layout: registry.TuningLayout,
    say: Callable[[str], None],
) -> Contender | Absent:
    obstacle = registry.why_unusable(candidate)
    if obstacle:
        return Absent(candidate.engine, candidate.precision, obstacle)
    loose = version.budget > _LOOSEST_DEFAULT_BUDGET
    try:
        export = registry.export_model(
            version.path,
            digest=version.digest,
            exports_dir=version.exports_dir,
            task=version.task,
            precision=candidate.precision,
            engine=candidate.engine,
            samples=version.samples if candidate.lossy else None,
            min_agreement=1 - version.budget if loose and candidate.lossy else None,
            progress=lambda stage: say(f"{candidate.name}: {stage}"),
        )
    except (registry.ExportError, registry.GateRefusedError, registry.UnsafeContentError) as error:
        return Absent(candidate.engine, candidate.precision, error.message)
    return Contender(
        candidate.engine,
        candidate.precision,
        export.path,
        export.task,
        "" if export.path == version.path else export.key,
        candidate.batch_invariant,
        number,
        layout,
    )


def in_layouts(contender: Contender, cores: int, *, alone: bool) -> Iterator[Contender]:
    """Yield the contender in each layout; `alone` runs each row by itself."""
    for layout in layouts(cores):
        one = replace(contender, layout=layout)
        yield one.alone() if alone else one
