"""Converting and judging models whose batches hold rows of one shape, so that nothing is padded.

Waveforms: padding one changes the answer where the model normalises over a whole row, and costs
more than a batch saves elsewhere. Images: they all have one size.
"""

from __future__ import annotations

import shutil
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from registry.errors import ExportError
from registry.export.channel import Emit
from registry.export.comparison import compare
from registry.export.evidence import MODEL_FILE, Evidence, read_evidence, write_evidence
from registry.export.messages import ChildRequest, Progress, Success
from registry.export.parity import Answer, Encoded
from registry.export.session import open_session
from registry.export.source import ModelSource
from registry.export.tasks import TASKS, TaskSpec
from registry.export.verdict import peak_memory_bytes, verdict

_BATCH_ROWS = 4


def convert_unpadded(
    request: ChildRequest,
    source: ModelSource,
    emit: Emit,
    inputs: Sequence[Encoded],
    *,
    example_shape: Sequence[int],
    axes: Mapping[int, tuple[str, int, int]],
    files: Sequence[str],
) -> None:
    """Write the export's files, and the evidence that they are to be compared with.

    Args:
        request, source, emit: as in `registry.export.forms.Form`.
        inputs: to compare on.
        example_shape: of the model's input while it is traced.
        axes: axis number -> name, smallest and largest size of those that vary.
        files: names of the directory's files that serving reads besides `config.json`.
    """
    output_dir = Path(request.output_dir)
    emit(Progress("loading the model"))
    import torch

    from registry.export.graph import keep_outputs, trace
    from registry.export.onnx_file import write_model
    from registry.export.torch_model import load_torch_model

    model, _ = load_torch_model(source, threads=request.threads)
    model.config.to_json_file(output_dir / "config.json", use_diff=False)
    for name in files:
        if (source.path / name).is_file():
            shutil.copyfile(source.path / name, output_dir / name)
    emit(Progress(f"answering {len(inputs)} inputs with torch"))
    started = time.perf_counter()
    reference = _run_torch(model, inputs, source.task)
    torch_s = time.perf_counter() - started
    emit(Progress("tracing and converting to ONNX"))
    (name,) = source.task.inputs
    sizes = {
        axis: torch.export.Dim(word, min=least, max=most)
        for axis, (word, least, most) in axes.items()
    }
    graph = trace(model, {name: torch.zeros(tuple(example_shape))}, {name: sizes})
    keep_outputs(graph, source.task.outputs)
    evidence = Evidence(
        request=request,
        input_names=source.task.inputs,
        output_names=source.task.outputs,
        architecture=type(model).__name__,
        problem_type=getattr(model.config, "problem_type", None),
        pad_id=0,
        pad_left=False,
        inputs=len(inputs),
        samples=0,
        torch_s=torch_s,
    )
    write_model(graph, output_dir / MODEL_FILE)
    write_evidence(Path.cwd(), evidence, inputs, reference)


def judge_unpadded(directory: Path, emit: Emit, *, unit: str) -> Success:
    """Answer the evidence's inputs with ONNX Runtime and report how the answers compare.

    Args:
        directory: has the evidence.
        emit: tells of progress.
        unit: what the last axis of an input counts, in words.
    """
    evidence, inputs, reference = read_evidence(directory)
    spec = TASKS[evidence.request.task]
    emit(Progress(f"answering {len(inputs)} inputs with ONNX Runtime, alone and in batches"))
    started = time.perf_counter()
    alone, batched = _run_onnx(evidence, inputs, spec)
    comparison = compare(reference, alone, batched, spec.agreement, evidence.problem_type)
    (name,) = spec.inputs
    return Success(
        report=verdict(
            evidence.request,
            comparison,
            # What is read of a frame is its best token, and its logits have no bounds.
            relative=spec.per_token or evidence.problem_type == "regression",
            lengths=[one[name].shape[-1] for one in inputs],
            samples=0,
            seconds=evidence.torch_s + time.perf_counter() - started,
            unit=unit,
        ),
        input_names=evidence.input_names,
        output_names=evidence.output_names,
        architecture=evidence.architecture,
        peak_memory_bytes=peak_memory_bytes(),
    )


def _run_torch(model: Any, inputs: Sequence[Encoded], spec: TaskSpec) -> list[Answer]:
    import torch

    answers: list[Answer] = []
    (name,) = spec.inputs
    with torch.inference_mode():
        for one in inputs:
            found = model(**{name: torch.from_numpy(one[name][None])})
            answers.append({output: found[output][0].numpy() for output in spec.outputs})
    if not all(np.isfinite(output).all() for answer in answers for output in answer.values()):
        raise ExportError(
            "The model itself answers NaN or infinity.",
            hint="Training diverged, or the weights are damaged; take another version.",
        )
    return answers


def _run_onnx(
    evidence: Evidence, inputs: Sequence[Encoded], spec: TaskSpec
) -> tuple[list[Answer], list[tuple[int, Answer]]]:
    path = Path(evidence.request.output_dir, MODEL_FILE)
    session = open_session(path, threads=evidence.request.threads)
    (name,) = spec.inputs

    def run(indices: Sequence[int]) -> list[Answer]:
        batch = np.stack([inputs[index][name] for index in indices])
        outputs = session.run(list(spec.outputs), {name: batch})
        return [
            {output: value[row] for output, value in zip(spec.outputs, outputs, strict=True)}
            for row in range(len(indices))
        ]

    alone = [run([index])[0] for index in range(len(inputs))]
    batched: list[tuple[int, Answer]] = []
    for indices in _batches([one[name].shape for one in inputs]):
        batched += zip(indices, run(indices), strict=True)
    return alone, batched


def _batches(shapes: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """Return indices of inputs of one shape, a few at a time; each input once."""
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, shape in enumerate(shapes):
        groups[shape].append(index)
    return [
        group[start : start + _BATCH_ROWS]
        for group in groups.values()
        for start in range(0, len(group), _BATCH_ROWS)
    ]
