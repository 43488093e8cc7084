"""Find or make the export of a snapshot; the parent's side, which never imports torch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from registry.errors import ExportError, GateRefusedError, UsageError
from registry.export.candidates import (
    CANDIDATES,
    DEFAULT_ENGINE,
    DEFAULT_PRECISION,
    Candidate,
    find_candidate,
)
from registry.export.derive import DEFAULT_LOSSY_TOLERANCE, Gate, Recipe, derive, own_samples
from registry.export.limits import FILE_FLOOR_BYTES, MEMORY_FLOOR_BYTES, available_cores
from registry.export.messages import ChildRequest
from registry.export.process import run_child
from registry.export.received import check_export
from registry.export.report import ParityReport
from registry.export.source import ModelSource, read_source
from registry.export.store import (
    RECORD,
    Export,
    Refusal,
    commit,
    discard,
    export_key,
    find_export,
    find_refusal,
    is_intact,
    keep_refusal,
    list_files,
    read_export,
    refusal_path,
    staging,
    tool_versions,
)
from registry.store.locks import single_flight

DEFAULT_TOLERANCE = 1e-4
"""Largest allowed difference of a logit in float32: scores then agree to 1e-4 as well."""

DEFAULT_TIMEOUT_S = 900.0
"""Longest that one export may take."""

_PRECISION = DEFAULT_PRECISION
_ENGINE = DEFAULT_ENGINE
_MEMORY_PER_WEIGHT = 8
_ADAPTER_TOOLS = ("peft",)
_EXPORTER_TOOLS = ("onnxscript", "torch", "transformers")


def export_model(
    pulled_path: Path,
    *,
    digest: str,
    exports_dir: Path,
    task: str | None = None,
    precision: str = DEFAULT_PRECISION,
    engine: str = DEFAULT_ENGINE,
    tolerance: float | None = None,
    min_agreement: float | None = None,
    samples: Path | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    force: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Export:
    """Return an export of a model directory, making it if there is no valid one.

    An existing export is returned without importing torch. A new one appears complete or not at
    all, also when several processes make it at the same time. Other candidates than ONNX in fp32
    are derived from that export, which is found or made first, and judged against it.

    Args:
        pulled_path: the snapshot, as `registry.pull` gives it.
        digest: its digest (SHA-256, hexadecimal), which addresses the export.
        exports_dir: the exports folder; made when missing.
        task: None takes what the architecture is for.
        precision, engine: which candidate, see `registry.CANDIDATES`.
        tolerance: of the parity gate, on logits; for regression relative to outputs above 1.
            None takes the candidate's own: `DEFAULT_TOLERANCE`, or `DEFAULT_LOSSY_TOLERANCE`.
        min_agreement: of a lossy candidate, smallest share of labels that must agree with fp32;
            None is `DEFAULT_MIN_AGREEMENT`.
        samples: JSON lines to judge a derived export on, in place of the artifact's own.
        timeout_s: for the whole child process.
        force: export again even if there is one, or one was refused.
        progress: told of every stage, in words.

    Raises:
        GateRefusedError: the export differs from torch by more than the tolerance; its report is
            kept, and a second call refuses at once.
        ExportError: the model cannot be exported; other errors as in `read_source`.
        StorageError: the disk refuses.
    """
    candidate = find_candidate(engine, precision)
    say = progress or (lambda _text: None)
    wanted = _check_tolerance(tolerance, candidate)
    if (pulled_path / RECORD).is_file():
        # An export that was pulled: what it was made from is not here, and need not be.
        base = replace(check_export(pulled_path), digest=digest)
        if (base.engine, base.precision) == (engine, precision):
            return base
    else:
        source = read_source(pulled_path, task)
        if candidate == CANDIDATES[0]:
            return _fp32(source, digest, exports_dir, wanted, timeout_s, force, say)
        base = find_export(exports_dir, digest, source.task.name) or _fp32(
            source, digest, exports_dir, DEFAULT_TOLERANCE, timeout_s, False, say
        )
    gate = Gate.of(candidate, wanted, min_agreement)
    recipe = Recipe(candidate, base, gate, samples or own_samples(pulled_path), timeout_s)
    return derive(recipe, exports_dir, force=force, progress=say)


def _check_tolerance(tolerance: float | None, candidate: Candidate) -> float:
    if tolerance is None:
        return DEFAULT_LOSSY_TOLERANCE if candidate.lossy else DEFAULT_TOLERANCE
    if not (math.isfinite(tolerance) and tolerance > 0):
        raise UsageError(f"{tolerance} is no tolerance.", hint="For example --tolerance 1e-4.")
    return tolerance


def _fp32(
    source: ModelSource,
    digest: str,
    exports_dir: Path,
    tolerance: float,
    timeout_s: float,
    force: bool,
    say: Callable[[str], None],
) -> Export:
    """Return the export that all others are derived from; the only one that needs torch."""
    adapted = source.base is not None
    tools = tool_versions(_ADAPTER_TOOLS if adapted else ())
    key = export_key(
        digest, task=source.task.name, precision=_PRECISION, engine=_ENGINE, tools=tools
    )
    with single_flight(exports_dir / ".locks" / f"{key}.lock", timeout_s=timeout_s):
        found = None if force else _existing(exports_dir, key, digest, source, tolerance)
        if found is not None:
            return found
        needed = (*_EXPORTER_TOOLS, *(_ADAPTER_TOOLS if adapted else ()))
        missing = [name for name in needed if name not in tools]
        if missing:
            raise ExportError(
                f"An export needs {', '.join(missing)}, which is not installed.",
                hint="Install runport[export], or export where it is installed.",
            )
        job = _Job(source, key, digest, exports_dir, tolerance, timeout_s, tools)
        return job.make(say, replace=force)


def _existing(
    exports_dir: Path, key: str, digest: str, source: ModelSource, tolerance: float
) -> Export | None:
    """Return a finished export, refuse as before, or return None; delete a damaged one."""
    found = read_export(exports_dir / key)
    if found is not None and is_intact(found):
        if not found.report.within(tolerance):
            raise _refused(found.report, tolerance)
        return found
    if (exports_dir / key).exists():
        discard(exports_dir / key)
    refusal = find_refusal(exports_dir, digest, source.task.name, _PRECISION, _ENGINE)
    if refusal is not None and refusal.key == key and not refusal.report.within(tolerance):
        raise _refused(refusal.report, tolerance)
    return None


@dataclass(frozen=True, slots=True)
class _Job:
    """One export that has to be made."""

    source: ModelSource
    key: str
    digest: str
    exports_dir: Path
    tolerance: float
    timeout_s: float
    tools: dict[str, str]

    def make(self, say: Callable[[str], None], *, replace: bool) -> Export:
        """Run the child; commit what it made, or keep the report and refuse."""
        started = time.perf_counter()
        with staging(self.exports_dir, self.key) as work:
            prepared, scratch = work / "export", work / "scratch"
            prepared.mkdir(mode=0o700)
            scratch.mkdir(mode=0o700)
            request = self._request(prepared)
            made = run_child(request, scratch_dir=scratch, timeout_s=self.timeout_s, progress=say)
            if not made.report.passed:
                keep_refusal(self._refusal(made.report))
                raise _refused(made.report, self.tolerance)
            export = Export(
                path=self.exports_dir / self.key,
                key=self.key,
                digest=self.digest,
                task=self.source.task.name,
                precision=_PRECISION,
                engine=_ENGINE,
                report=made.report,
                input_names=made.input_names,
                output_names=made.output_names,
                max_tokens=self.source.max_tokens,
                architecture=made.architecture,
                weights_bytes=self.source.weights_bytes,
                created_at_s=time.time(),
                seconds=round(time.perf_counter() - started, 3),
                peak_memory_bytes=made.peak_memory_bytes,
                files=list_files(prepared),
                fusions=made.fusions,
            )
            return commit(prepared, self.exports_dir, export, replace=replace)

    def _request(self, prepared: Path) -> ChildRequest:
        threads = available_cores()
        weights_bytes = self.source.weights_bytes
        return ChildRequest(
            model_dir=str(self.source.path.absolute()),
            output_dir=str(prepared.absolute()),
            task=self.source.task.name,
            tolerance=self.tolerance,
            threads=threads,
            memory_limit_bytes=MEMORY_FLOOR_BYTES + _MEMORY_PER_WEIGHT * weights_bytes,
            cpu_limit_s=math.ceil(self.timeout_s) * threads + 1,
            file_limit_bytes=FILE_FLOOR_BYTES + 4 * weights_bytes,
            tools=self.tools,
        )

    def _refusal(self, report: ParityReport) -> Refusal:
        return Refusal(
            path=refusal_path(self.exports_dir, self.key),
            key=self.key,
            digest=self.digest,
            task=self.source.task.name,
            precision=_PRECISION,
            engine=_ENGINE,
            report=report,
        )


def _refused(report: ParityReport, tolerance: float) -> GateRefusedError:
    return GateRefusedError(
        f"The export differs from torch by {report.worst_abs_diff:.2e}, more than the tolerance of "
        f"{tolerance:g} allows ({report.allowed(tolerance):.2e}); labels agree on "
        f"{report.label_agreement:.2%} of {report.inputs} inputs.",
        hint="It is not served; `registry serve` uses torch. --tolerance accepts more, "
        "--force exports again, `registry inspect` shows the report.",
    )
