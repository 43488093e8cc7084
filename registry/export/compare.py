"""The exporting child, second half: answer with ONNX Runtime, judge, report. Needs no torch.

`python -m registry.export.compare`, in the directory with the evidence; `registry.export.child`
turns into it.
"""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from registry.errors import RegistryError
from registry.export.channel import Emit, claimed_stdout, die_with_parent
from registry.export.comparison import Comparison, compare
from registry.export.evidence import MODEL_FILE, Evidence, read_evidence
from registry.export.messages import Failure, Progress, Success
from registry.export.parity import Answer, Encoded, Output, cut, pad, plan_batches
from registry.export.report import ParityReport
from registry.export.session import open_session
from registry.export.tasks import TASKS


def main() -> int:
    """Report on the evidence in the current directory."""
    with claimed_stdout() as emit:
        die_with_parent()
        try:
            emit(_judge(Path.cwd(), emit))
        except RegistryError as error:
            emit(Failure(**error.as_dict()))
    return 0


def _judge(directory: Path, emit: Emit) -> Success:
    evidence, inputs, reference = read_evidence(directory)
    emit(Progress(f"answering {len(inputs)} inputs with ONNX Runtime, alone and in batches"))
    started = time.perf_counter()
    alone, batched = _run_onnx(evidence, inputs)
    agreement = TASKS[evidence.request.task].agreement
    comparison = compare(reference, alone, batched, agreement, evidence.problem_type)
    seconds = evidence.torch_s + time.perf_counter() - started
    # The kernel keeps the maximum over `exec`, so that this is of both halves.
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Success(
        report=_report(evidence, comparison, inputs, seconds),
        input_names=evidence.input_names,
        output_names=evidence.output_names,
        architecture=evidence.architecture,
        peak_memory_bytes=peak_kib * 1024,
    )


def _run_onnx(
    evidence: Evidence, inputs: Sequence[Encoded]
) -> tuple[list[Answer], list[tuple[int, Answer]]]:
    path = Path(evidence.request.output_dir, MODEL_FILE)
    session = open_session(path, threads=evidence.request.threads)
    names = [value.name for value in session.get_inputs()]
    spec = TASKS[evidence.request.task]

    def run(rows: Sequence[Encoded]) -> list[Answer]:
        batch: Mapping[str, Any] = pad(
            rows, names, pad_id=evidence.pad_id, pad_left=evidence.pad_left
        )
        values: list[Output] = session.run(list(spec.outputs), dict(batch))
        outputs = dict(zip(spec.outputs, values, strict=True))
        return [
            cut(outputs, row, len(one["input_ids"]), spec, pad_left=evidence.pad_left)
            for row, one in enumerate(rows)
        ]

    alone = [run([one])[0] for one in inputs]
    batched: list[tuple[int, Answer]] = []
    for indices in plan_batches([len(one["input_ids"]) for one in inputs]):
        batched += zip(indices, run([inputs[index] for index in indices]), strict=True)
    return alone, batched


def _report(
    evidence: Evidence, comparison: Comparison, inputs: Sequence[Encoded], seconds: float
) -> ParityReport:
    request = evidence.request
    allowed = request.tolerance
    agreement = TASKS[request.task].agreement
    if evidence.problem_type == "regression" or agreement == "direction":
        # These outputs have units or no bounds; float32 is exact to a share of their size.
        allowed *= max(1.0, comparison.largest_reference)
    worst = max(comparison.max_abs_diff, comparison.max_batched_abs_diff)
    return ParityReport(
        passed=worst <= allowed,
        tolerance=request.tolerance,
        allowed_abs_diff=allowed,
        max_abs_diff=comparison.max_abs_diff,
        max_batched_abs_diff=comparison.max_batched_abs_diff,
        max_invariance_abs_diff=comparison.max_invariance_abs_diff,
        percentiles=comparison.percentiles,
        label_agreement=comparison.label_agreement,
        batched_label_agreement=comparison.batched_label_agreement,
        inputs=len(inputs),
        samples=evidence.samples,
        lengths=tuple(sorted({len(one["input_ids"]) for one in inputs})),
        seconds=round(seconds, 3),
        tools={"python": platform.python_version(), **request.tools},
        hardware=_hardware(request.threads),
    )


def _hardware(threads: int) -> dict[str, str]:
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    return {
        "processor": processor,
        "machine": platform.machine(),
        "system": platform.system(),
        "threads": str(threads),
    }


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    # Native threads of ONNX Runtime need not be unwound; all that matters was said.
    os._exit(status)
