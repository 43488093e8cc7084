"""The child that derives an export from another: answer with fp32, convert, answer, judge.

`python -m registry.export.derive_child`, fed by `process.run_child`. Needs neither torch nor
transformers; limits itself before it imports anything heavy.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from registry.errors import ExportError, IntegrityError
from registry.export.budget import agreement_of
from registry.export.channel import Emit, claimed_stdout, die_with_parent
from registry.export.comparison import compare
from registry.export.confinement import confine, reported
from registry.export.evidence import MODEL_FILE, PLAIN_FILE
from registry.export.messages import DeriveRequest, Progress, Success
from registry.export.parity import Answer, Encoded, cut, pad, plan_batches
from registry.export.store import RECORD, Export, read_record
from registry.export.tasks import TASKS
from registry.export.text_inputs import TextInputs, read_inputs
from registry.export.verdict import peak_memory_bytes, verdict

Run: TypeAlias = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""A padded batch by input name -> outputs by name."""


_STATIC = ("int8", "int8-static")


def main() -> None:
    """Work on one request."""
    with claimed_stdout() as emit:
        request = msgspec.json.decode(sys.stdin.buffer.readline(), type=DeriveRequest)
        die_with_parent()
        confine(request)
        reported(request, emit, lambda: emit(_derive(request, emit)))


def _derive(request: DeriveRequest, emit: Emit) -> Success:
    base = _base(request)
    inputs = read_inputs(base, Path(request.samples) if request.samples else None)
    started = time.perf_counter()
    emit(Progress(f"answering {len(inputs.judged)} inputs with {base.engine} {base.precision}"))
    reference = _alone(_open_onnx(base.path, request.threads), base, inputs)
    compared_s = time.perf_counter() - started
    _copy_companions(base, Path(request.output_dir))
    static = request.precision in _STATIC
    for spare_wide in (False, True):
        floats = ", wide products in float" if spare_wide else ""
        emit(Progress(f"converting to {request.engine} {request.precision}{floats}"))
        _convert(request, base, inputs, spare_wide=spare_wide)
        emit(Progress("answering with it, alone and in batches"))
        started = time.perf_counter()
        run = _open(request)
        answers = (reference, _alone(run, base, inputs), _batched(run, base, inputs))
        compared_s += time.perf_counter() - started
        made = _judged(request, base, inputs, answers, compared_s, floats)
        if made.report.passed or not static:
            break
    return made


def _base(request: DeriveRequest) -> Export:
    """Return the record of the export to derive from.

    Raises:
        IntegrityError: it is gone.
        ExportError: models of its form are exported in fp32 for ONNX Runtime only.
    """
    base = read_record(Path(request.base_dir))
    if base is None:
        raise IntegrityError(f"There is no export in {request.base_dir} any more.")
    form = TASKS[base.task].form
    if form != "text":
        raise ExportError(
            f"Models of the form {form!r} are exported as onnx/fp32 only.",
            hint="Leave --engine and --precision out.",
        )
    return base


def _copy_companions(base: Export, output_dir: Path) -> None:
    """Copy what a server needs beside the graph."""
    for file in base.files:
        if file.name not in (RECORD, PLAIN_FILE) and not file.name.startswith(MODEL_FILE):
            shutil.copyfile(base.path / file.name, output_dir / file.name)


def _convert(request: DeriveRequest, base: Export, inputs: TextInputs, *, spare_wide: bool) -> None:
    output_dir = Path(request.output_dir)
    if request.engine == "onnx":
        graph = base.path / MODEL_FILE
        _quantize(request.precision, base, graph, inputs, output_dir, spare_wide)
        return
    from registry.export.openvino_model import write_ir

    if request.precision != "int8":
        write_ir(_plain_file(base), output_dir)
        return
    # Under a folder of its own, which is gone with the scratch folder that we work in.
    quantized = Path.cwd() / "quantized"
    quantized.mkdir(exist_ok=True)
    _quantize("int8-static", base, _plain_file(base), inputs, quantized, spare_wide)
    write_ir(quantized / MODEL_FILE, output_dir)


def _plain_file(base: Export) -> Path:
    """Return the graph that has operators of the standard alone."""
    plain = base.path / PLAIN_FILE
    return plain if plain.is_file() else base.path / MODEL_FILE


def _quantize(
    precision: str,
    base: Export,
    graph: Path,
    inputs: TextInputs,
    directory: Path,
    spare_wide: bool,
) -> None:
    from registry.export.quantize import quantize_all, quantize_weights

    if precision == "int8-dynamic":
        quantize_weights(graph, directory)
        return
    # Each alone: padding would be measured along, and is not what decides.
    batches = [_batch([one], base, inputs) for one in inputs.calibration]
    quantize_all(graph, directory, batches, spare_wide=spare_wide)


def _open(request: DeriveRequest) -> Run:
    directory = Path(request.output_dir)
    if request.engine == "onnx":
        return _open_onnx(directory, request.threads)
    from registry.export.openvino_model import open_openvino

    model = open_openvino(directory, request.precision, threads=request.threads)
    return lambda batch: model.run(model.requests[0], batch)


def _open_onnx(directory: Path, threads: int) -> Run:
    from registry.export.session import open_session

    session = open_session(directory / MODEL_FILE, threads=threads)
    names = [value.name for value in session.get_outputs()]
    return lambda batch: dict(zip(names, session.run(names, dict(batch)), strict=True))


def _batch(rows: Sequence[Encoded], base: Export, inputs: TextInputs) -> dict[str, Any]:
    return pad(rows, base.input_names, pad_id=inputs.pad_id, pad_left=inputs.pad_left)


def _answers(run: Run, rows: Sequence[Encoded], base: Export, inputs: TextInputs) -> list[Answer]:
    outputs = run(_batch(rows, base, inputs))
    spec = TASKS[base.task]
    return [
        cut(outputs, row, len(one["input_ids"]), spec, pad_left=inputs.pad_left)
        for row, one in enumerate(rows)
    ]


def _alone(run: Run, base: Export, inputs: TextInputs) -> list[Answer]:
    return [_answers(run, [one], base, inputs)[0] for one in inputs.judged]


def _batched(run: Run, base: Export, inputs: TextInputs) -> list[tuple[int, Answer]]:
    batched: list[tuple[int, Answer]] = []
    for indices in plan_batches([len(one["input_ids"]) for one in inputs.judged]):
        rows = [inputs.judged[index] for index in indices]
        batched += zip(indices, _answers(run, rows, base, inputs), strict=True)
    return batched


def _judged(
    request: DeriveRequest,
    base: Export,
    inputs: TextInputs,
    answers: tuple[list[Answer], list[Answer], list[tuple[int, Answer]]],
    seconds: float,
    floats: str,
) -> Success:
    reference, alone, batched = answers
    agreement = TASKS[base.task].agreement
    problem_type = _problem_type(base.path)
    comparison = compare(reference, alone, batched, agreement, problem_type)
    found = verdict(
        request,
        comparison,
        relative=problem_type == "regression" or agreement == "direction",
        lengths=[len(one["input_ids"]) for one in inputs.judged],
        samples=inputs.held_out,
        seconds=seconds,
    )
    share, counted = agreement_of(
        agreement, problem_type, reference, alone, batched, inputs.held_out
    )
    agrees = request.min_agreement is None or share >= request.min_agreement
    return Success(
        report=dataclasses.replace(
            found,
            passed=found.passed and agrees,
            reference=f"{base.engine} {base.precision}",
            min_agreement=request.min_agreement,
            budget_agreement=share,
            budget_inputs=counted,
            calibration=inputs.calibrated_on + floats if request.precision in _STATIC else "",
        ),
        input_names=base.input_names,
        output_names=base.output_names,
        architecture=base.architecture,
        peak_memory_bytes=peak_memory_bytes(),
    )


def _problem_type(directory: Path) -> str | None:
    config = msgspec.json.decode((directory / "config.json").read_bytes(), type=dict[str, Any])
    named = config.get("problem_type")
    return named if isinstance(named, str) else None


if __name__ == "__main__":
    main()
    sys.stderr.flush()
    # Native threads need not be unwound; all that matters was said.
    os._exit(0)
