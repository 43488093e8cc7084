"""Measure the candidates of this machine on one version, choose, store."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from registry import (
    OBJECTIVES,
    ExportError,
    Tuning,
    TuningRow,
    UsageError,
    check_export,
    keep_tuning,
    machine_facts,
    read_source,
    tuning_tools,
)
from serving.config import available_cores
from serving.errors import ServingError
from serving.prepare.engine import CHECKED, EXPORT_FILE
from serving.tasks import open_task
from serving.tune.choose import Rules, choose, explain, make_row
from serving.tune.contenders import (
    Absent,
    Contender,
    Field,
    Version,
    candidate_names,
    gather_field,
    in_layouts,
)
from serving.tune.examine import Examination, Reference, answer_reference, examine
from serving.tune.items import SAMPLES_FILE, TUNABLE, Inputs, gather_inputs
from serving.tune.rounds import Plan, Rounds, Timed
from serving.tune.workers import Workers, bare_bytes

DEFAULT_BUDGET = 0.005
DEFAULT_SECONDS = 8.0

_ROUNDS = 4
_FEWEST_INPUTS = 256
_MOST_INPUTS = 1024
_REFERENCE_S = 12.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class TuneRequest:
    """What shall be measured, and how it is chosen.

    Attributes:
        path, digest: the snapshot.
        task: what it answers; None takes what its architecture is for.
        cache_dir: where exports and measurements are kept.
        budget: largest share of answers that may differ from fp32's, 0 to below 1.
        objective: `throughput`, `latency` or `memory`.
        named: candidates to measure beside the reference; none for all.
        samples: JSON lines to measure on; None takes the version's own, else draws.
        seconds: of timing for each contender, about.
        environment: of this process, for the workers.
    """

    path: Path
    digest: str
    cache_dir: Path
    task: str | None = None
    budget: float = DEFAULT_BUDGET
    objective: str = OBJECTIVES[0]
    named: Sequence[str] = ()
    samples: Path | None = None
    seconds: float = DEFAULT_SECONDS
    environment: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Raise UsageError if a value cannot be used."""
        if not (math.isfinite(self.budget) and 0 <= self.budget < 1):
            raise UsageError(
                f"{self.budget} is no share of answers.", hint="For example --budget 0.005."
            )
        if not (math.isfinite(self.seconds) and 0 < self.seconds <= 3600):
            raise UsageError(
                f"{self.seconds} is no time to measure for.", hint="For example --seconds 8."
            )
        if self.objective not in OBJECTIVES:
            raise UsageError(
                f"{self.objective!r} is no objective.", hint=f"Use one of {', '.join(OBJECTIVES)}."
            )
        unknown = [name for name in self.named if name not in candidate_names()]
        if unknown:
            raise UsageError(
                f"{unknown[0]!r} is no candidate.",
                hint=f"There are {', '.join(candidate_names())}.",
            )


@dataclass(frozen=True, slots=True)
class _Measured:
    """All that was measured, before it is judged.

    Attributes:
        reference: what the reference answered.
        examined: by candidate.
        timed: by contender; the first is the reference's.
        failed: candidates that could not be examined.
        bare_bytes: of a worker without a model.
    """

    reference: Reference
    examined: Mapping[str, Examination]
    timed: Sequence[Timed]
    failed: Sequence[Absent]
    bare_bytes: int | None


def version_of(request: TuneRequest) -> Version:
    """Check the request and return the version that it is about.

    Raises:
        UsageError: a value cannot be used, or the task cannot be tuned.
        RegistryError: as `read_source`.
    """
    request.check()
    exports_dir = request.cache_dir / "exports"
    if (request.path / EXPORT_FILE).is_file():
        export = check_export(request.path, marks_dir=exports_dir / CHECKED, digest=request.digest)
        task, max_tokens = export.task, export.max_tokens
    else:
        source = read_source(request.path, request.task)
        task, max_tokens = source.task.name, source.max_tokens
    if task not in TUNABLE:
        raise UsageError(
            f"The task {task!r} cannot be tuned yet.", hint=f"These can: {', '.join(TUNABLE)}."
        )
    return Version(
        path=request.path,
        digest=request.digest,
        task=task,
        exports_dir=exports_dir,
        max_tokens=max_tokens,
        samples=request.samples,
        budget=request.budget,
    )


def tune(request: TuneRequest, say: Say) -> Tuning:
    """Measure, choose and store; nothing is stored unless all of it went well.

    Args:
        request: what.
        say: told of what happens, in words.

    Raises:
        UsageError: the request cannot be met: a value, the samples, a task that cannot be tuned.
        RegistryError: the version cannot be exported or served at all, or the disk refuses.
    """
    began_s, load_before = time.time(), _load()
    version = version_of(request)
    cores = available_cores()
    field_ = gather_field(version, request.named, cores, say)
    inputs = _inputs(request, version, field_.contenders[0])
    try:
        measured = asyncio.run(_measure(request, field_, inputs, cores, say))
    except ServingError as error:
        raise ExportError(
            f"{field_.contenders[0].title}, which all is compared with, failed: {error.message}",
            hint=error.hint,
        ) from error
    rules = Rules(request.budget, request.objective, request.named)
    rows = _rows(measured, field_, rules)
    if not any(row.eligible for row in rows):
        raise ExportError(
            f"Nothing can be chosen: {_reasons(rows)}.",
            hint="Allow a larger --budget, or give --samples that are like the model's own texts.",
        )
    chosen = choose(rows, {one.name: one.exactness for one in field_.contenders}, rules)
    tuning = Tuning(
        digest=request.digest,
        task=version.task,
        machine=machine_facts(),
        tools=tuning_tools(torch=True),
        objective=request.objective,
        budget=request.budget,
        named=tuple(request.named),
        inputs=len(measured.reference.places),
        inputs_from=inputs.origin,
        lengths=_lengths(measured.reference),
        reference=field_.contenders[0].title,
        rounds=_ROUNDS,
        load_before=load_before,
        load_after=_load(),
        seconds=round(time.time() - began_s, 1),
        created_at_s=began_s,
        rows=tuple(rows),
        chosen=chosen,
        why=explain(rows, chosen, rules),
    )
    keep_tuning(request.cache_dir, tuning)
    return tuning


def _inputs(request: TuneRequest, version: Version, reference: Contender) -> Inputs:
    own = request.path / SAMPLES_FILE
    samples = request.samples or (own if own.is_file() else None)
    # Fewer could not tell a share as small as the budget from none.
    finest = math.ceil(1 / request.budget) if request.budget > 0 else _MOST_INPUTS
    return gather_inputs(
        open_task(reference.directory, reference.task),
        reference.directory,
        count=min(_MOST_INPUTS, max(_FEWEST_INPUTS, finest)),
        max_tokens=version.max_tokens,
        samples=samples,
    )


async def _measure(
    request: TuneRequest, field_: Field, inputs: Inputs, cores: int, say: Say
) -> _Measured:
    first = field_.contenders[0]
    async with Workers(request.environment) as workers:
        bare = await bare_bytes()
        say(f"{first.title} answers, to compare with")
        worker = await workers.get(first)
        reference = await answer_reference(worker.client, first, inputs, most_s=_REFERENCE_S)
        examined: dict[str, Examination] = {}
        failed: list[Absent] = []
        for contender in field_.contenders:
            say(f"{contender.name}: its answers, alone and in batches")
            try:
                worker = await workers.get(contender)
                examined[contender.name] = await examine(
                    worker.client, contender, inputs, reference
                )
            except ServingError as error:
                if contender is first:
                    raise
                await workers.stop(contender)
                failed.append(Absent(contender.engine, contender.precision, error.message))
        racing = _racing(field_, examined, request.budget, cores)
        for contender in field_.contenders:
            if contender not in racing:
                await workers.stop(contender)
        plan = Plan(_ROUNDS, request.seconds, request.objective)
        timed = await Rounds(workers, inputs, reference, plan, say).run(racing)
    return _Measured(reference, examined, timed, failed, bare)


def _racing(
    field_: Field, examined: Mapping[str, Examination], budget: float, cores: int
) -> list[Contender]:
    """Return who is timed: what may be chosen in every layout, what may not in one."""
    first = field_.contenders[0]
    racing = [first]
    for contender in field_.contenders:
        found = examined.get(contender.name)
        if found is None:
            continue
        ways = in_layouts(contender, cores, alone=not found.batch_invariant)
        shown = list(ways)[: None if found.fidelity.disagreement <= budget else 1]
        racing.extend(one for one in shown if one != first)
    return racing


def _rows(measured: _Measured, field_: Field, rules: Rules) -> list[TuningRow]:
    rows = [
        make_row(
            timed,
            measured.timed[0],
            measured.examined[timed.contender.name],
            rules,
            measured.bare_bytes,
        )
        for timed in measured.timed
    ]
    absent = (*field_.absent, *measured.failed)
    return rows + [
        TuningRow(engine=one.engine, precision=one.precision, reason=one.reason) for one in absent
    ]


def _reasons(rows: Sequence[TuningRow]) -> str:
    return "; ".join(f"{row.name}: {row.reason}" for row in rows)


def _lengths(reference: Reference) -> dict[str, int]:
    lengths = sorted(reference.lengths[place] for place in reference.places)
    return {
        "p50": lengths[len(lengths) // 2],
        "p95": lengths[min(len(lengths) - 1, round(0.95 * len(lengths)))],
        "max": lengths[-1],
    }


def _load() -> float:
    with contextlib.suppress(OSError):
        return round(os.getloadavg()[0], 2)
    return 0.0
