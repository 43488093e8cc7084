"""Find or make an export in another precision or for another engine; the parent's side.

Everything but ONNX in fp32 is derived from that export: neither torch nor transformers is needed,
so that a machine which only pulled an export can derive from it. Each is judged against the export
that it came from, which itself was judged against torch.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from registry.errors import ExportError, GateRefusedError, NotFoundError, UsageError
from registry.export.candidates import (
    DEFAULT_ENGINE,
    DEFAULT_PRECISION,
    Candidate,
    why_unmakeable,
)
from registry.export.limits import FILE_FLOOR_BYTES, MEMORY_FLOOR_BYTES, available_cores
from registry.export.messages import DeriveRequest
from registry.export.process import run_child
from registry.export.report import ParityReport
from registry.export.store import (
    Export,
    Refusal,
    commit,
    discard,
    export_key,
    hash_file,
    is_intact,
    keep_refusal,
    list_files,
    list_records,
    read_export,
    refusal_path,
    staging,
    tool_versions,
)
from registry.store.locks import single_flight

DEFAULT_LOSSY_TOLERANCE = 1.0
"""Largest difference of a logit to fp32 that a lossy precision may have on any one input."""

DEFAULT_MIN_AGREEMENT = 0.99
"""Smallest share of labels in which a lossy precision must agree with fp32."""

SAMPLES_FILE = "samples.jsonl"
_CHILD = "registry.export.derive_child"
_TOOLS = {"onnx": ("onnx", "onnxruntime"), "openvino": ("onnxruntime", "openvino")}
_MEMORY_PER_WEIGHT = 8


@dataclass(frozen=True, slots=True)
class Gate:
    """What a derived export must keep.

    Attributes:
        tolerance: largest difference of a logit to fp32.
        min_agreement: smallest share of labels; None where only rounding may differ.
    """

    tolerance: float
    min_agreement: float | None

    @classmethod
    def of(cls, candidate: Candidate, tolerance: float, min_agreement: float | None) -> Gate:
        """Return the gate of a candidate; agreement is budgeted where it is lossy.

        Raises:
            UsageError: `min_agreement` is no share.
        """
        if min_agreement is None:
            min_agreement = DEFAULT_MIN_AGREEMENT
        if not 0 < min_agreement <= 1 or math.isnan(min_agreement):
            raise UsageError(
                f"{min_agreement} is no share of labels.", hint="For example --min-agreement 0.99."
            )
        return cls(tolerance, min_agreement if candidate.lossy else None)

    def passes(self, report: ParityReport) -> bool:
        """Whether an export with this report may be served."""
        return report.within(self.tolerance, self.min_agreement)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What shall be derived, and from what.

    Attributes:
        candidate: engine and precision.
        base: the finished fp32 export.
        gate: what it must keep.
        samples: JSON lines of texts to calibrate and judge on; None draws inputs.
        timeout_s: for the whole child process.
    """

    candidate: Candidate
    base: Export
    gate: Gate
    samples: Path | None
    timeout_s: float

    @property
    def key(self) -> str:
        """The address of the export: all that shapes it."""
        candidate = self.candidate
        made_by = {
            name: version
            for name, version in tool_versions(_TOOLS[candidate.engine]).items()
            if name in _TOOLS[candidate.engine]
        }
        return export_key(
            self.base.digest,
            task=self.base.task,
            precision=candidate.precision,
            engine=candidate.engine,
            tools={**made_by, "base": _fingerprint(self.base), "samples": self._samples_hash()},
        )

    def _samples_hash(self) -> str:
        return hash_file(self.samples) if self.samples is not None else ""


def own_samples(snapshot: Path) -> Path | None:
    """Return the artifact's own samples, if it carries some."""
    path = snapshot / SAMPLES_FILE
    return path if path.is_file() else None


def derive(
    recipe: Recipe,
    exports_dir: Path,
    *,
    force: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Export:
    """Return the export of the recipe, making it if there is no valid one.

    Args:
        recipe: what to make.
        exports_dir: the exports folder; made when missing.
        force: make it again even if it is there, or was refused.
        progress: told of every stage, in words.

    Raises:
        GateRefusedError: it differs by more than the gate allows; its report is kept, and a second
            call refuses at once.
        ExportError: it cannot be made here, or from this export.
        NotFoundError: there are no such samples.
        StorageError: the disk refuses.
    """
    if recipe.samples is not None and not recipe.samples.is_file():
        raise NotFoundError(
            f"There is no file {recipe.samples}.", hint="--samples names a file of JSON lines."
        )
    key = recipe.key
    with single_flight(exports_dir / ".locks" / f"{key}.lock", timeout_s=recipe.timeout_s):
        found = None if force else _existing(exports_dir, key, recipe)
        if found is not None:
            return found
        _check_base(recipe.base)
        obstacle = why_unmakeable(recipe.candidate)
        if obstacle:
            raise ExportError(
                f"{recipe.candidate.name} cannot be made here: {obstacle}.",
                hint="Make it on a machine that can, and push it with --push.",
            )
        return _make(recipe, exports_dir, key, progress or (lambda _text: None), replace=force)


def _check_base(base: Export) -> None:
    """Raise ExportError unless the base is what all others are derived from."""
    if (base.engine, base.precision) != (DEFAULT_ENGINE, DEFAULT_PRECISION):
        raise ExportError(
            f"This export is {base.engine} {base.precision}; others are derived from "
            f"{DEFAULT_ENGINE} {DEFAULT_PRECISION} alone.",
            hint="Export the version that it was made from.",
        )


def _existing(exports_dir: Path, key: str, recipe: Recipe) -> Export | None:
    """Return a finished export, refuse as before, or return None; delete a damaged one."""
    found = read_export(exports_dir / key)
    if found is not None and is_intact(found):
        if not recipe.gate.passes(found.report):
            raise refused(found.report, recipe)
        return found
    if (exports_dir / key).exists():
        discard(exports_dir / key)
    for record in list_records(exports_dir, recipe.base.digest):
        same = isinstance(record, Refusal) and record.key == key
        if same and not recipe.gate.passes(record.report):
            raise refused(record.report, recipe)
    return None


def _make(
    recipe: Recipe, exports_dir: Path, key: str, say: Callable[[str], None], *, replace: bool
) -> Export:
    """Run the child; commit what it made, or keep the report and refuse."""
    started = time.perf_counter()
    base, candidate = recipe.base, recipe.candidate
    with staging(exports_dir, key) as work:
        prepared, scratch = work / "export", work / "scratch"
        prepared.mkdir(mode=0o700)
        scratch.mkdir(mode=0o700)
        made = run_child(
            _request(recipe, prepared),
            scratch_dir=scratch,
            timeout_s=recipe.timeout_s,
            progress=say,
            module=_CHILD,
        )
        if not made.report.passed:
            keep_refusal(_refusal(recipe, exports_dir, key, made.report))
            raise refused(made.report, recipe)
        export = Export(
            path=exports_dir / key,
            key=key,
            digest=base.digest,
            task=base.task,
            precision=candidate.precision,
            engine=candidate.engine,
            report=made.report,
            input_names=made.input_names,
            output_names=made.output_names,
            max_tokens=base.max_tokens,
            architecture=made.architecture,
            weights_bytes=base.weights_bytes,
            created_at_s=time.time(),
            seconds=round(time.perf_counter() - started, 3),
            peak_memory_bytes=made.peak_memory_bytes,
            files=list_files(prepared),
        )
        return commit(prepared, exports_dir, export, replace=replace)


def _refusal(recipe: Recipe, exports_dir: Path, key: str, report: ParityReport) -> Refusal:
    return Refusal(
        path=refusal_path(exports_dir, key),
        key=key,
        digest=recipe.base.digest,
        task=recipe.base.task,
        precision=recipe.candidate.precision,
        engine=recipe.candidate.engine,
        report=report,
    )


def _request(recipe: Recipe, prepared: Path) -> DeriveRequest:
    threads = available_cores()
    weights_bytes = recipe.base.weights_bytes
    return DeriveRequest(
        base_dir=str(recipe.base.path.absolute()),
        output_dir=str(prepared.absolute()),
        engine=recipe.candidate.engine,
        precision=recipe.candidate.precision,
        tolerance=recipe.gate.tolerance,
        min_agreement=recipe.gate.min_agreement,
        samples=str(recipe.samples.absolute()) if recipe.samples else None,
        threads=threads,
        memory_limit_bytes=MEMORY_FLOOR_BYTES + _MEMORY_PER_WEIGHT * weights_bytes,
        cpu_limit_s=math.ceil(recipe.timeout_s) * threads + 1,
        file_limit_bytes=FILE_FLOOR_BYTES + 4 * weights_bytes,
        tools=tool_versions(("openvino",)),
    )


def refused(report: ParityReport, recipe: Recipe) -> GateRefusedError:
    """Return the error that says how the export missed the gate."""
    gate = recipe.gate
    agreement = (
        f"; it agrees on {report.budget_agreement:.2%} of {report.budget_inputs} "
        f"(wanted {gate.min_agreement:.2%})"
        if gate.min_agreement is not None
        else ""
    )
    return GateRefusedError(
        f"{recipe.candidate.name} differs from {report.reference} by {report.worst_abs_diff:.2e} "
        f"({report.allowed(gate.tolerance):.2e} is allowed){agreement}.",
        hint="It is not served; fp32 is. --samples judges and calibrates on your own texts, "
        "--tolerance and --min-agreement accept more, `registry inspect` shows the report.",
    )


def _fingerprint(base: Export) -> str:
    """Return what tells two fp32 exports of one version apart: their files."""
    text = "".join(f"{file.name} {file.sha256}\n" for file in base.files)
    return hashlib.sha256(text.encode()).hexdigest()
