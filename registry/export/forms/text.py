"""Text models that answer in one pass: converted, and compared on inputs drawn over a vocabulary.

`convert` runs in the half of the child that has torch, `judge` in the other.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from registry.errors import ExportError
from registry.export.channel import Emit
from registry.export.comparison import compare
from registry.export.evidence import MODEL_FILE, PLAIN_FILE, Evidence, read_evidence, write_evidence
from registry.export.messages import ChildRequest, Progress, Success
from registry.export.parity import (
    Answer,
    Encoded,
    Frame,
    Output,
    cut,
    draw_inputs,
    draw_lengths,
    pad,
    plan_batches,
)
from registry.export.sentence import write_sentence_modules
from registry.export.session import open_session
from registry.export.source import ModelSource
from registry.export.tasks import TASKS, TaskSpec
from registry.export.verdict import peak_memory_bytes, verdict

SAMPLES_FILE = "samples.jsonl"
_MAX_SAMPLES = 256
_MAX_SAMPLES_BYTES = 4 * 1024 * 1024
_SEED = 20
_PROBE_TEXT = "a"


def convert(request: ChildRequest, source: ModelSource, emit: Emit) -> None:
    """Write the export's files, and the evidence that they are to be compared with."""
    output_dir = Path(request.output_dir)
    emit(Progress("loading the model"))
    from registry.export.fusion import fuse
    from registry.export.graph import export_graph
    from registry.export.onnx_file import Outline, write_model
    from registry.export.torch_model import load_torch_model, model_inputs

    model, tokenizer = load_torch_model(source, threads=request.threads)
    names = model_inputs(source, model, tokenizer)
    tokenizer.save_pretrained(output_dir)
    if "sentence_transformers" in source.config:
        model.config.sentence_transformers = source.config["sentence_transformers"]
    model.config.to_json_file(output_dir / "config.json", use_diff=False)
    if source.sentence is not None:
        write_sentence_modules(source.sentence, source.path, output_dir)
    frame = read_frame(source, model, tokenizer)
    samples = read_samples(source, tokenizer, names)
    inputs = [*samples, *draw(source, frame)]
    emit(Progress(f"answering {len(inputs)} inputs with torch"))
    started = time.perf_counter()
    reference = _run_torch(model, inputs, names, source.task)
    torch_s = time.perf_counter() - started
    emit(Progress("tracing and converting to ONNX"))
    graph = export_graph(model, source.task, names, max_tokens=source.max_tokens)
    plain = Outline(graph)
    fusions = fuse(graph)
    evidence = Evidence(
        request=request,
        input_names=names,
        output_names=tuple(str(value.name) for value in graph.graph.outputs),
        architecture=type(model).__name__,
        problem_type=getattr(model.config, "problem_type", None),
        pad_id=frame.pad_id,
        pad_left=frame.pad_left,
        inputs=len(inputs),
        samples=len(samples),
        torch_s=torch_s,
        fusions=fusions,
    )
    places = write_model(graph, output_dir / MODEL_FILE)
    if fusions:
        plain.write(output_dir / PLAIN_FILE, places)
    write_evidence(Path.cwd(), evidence, inputs, reference)


def read_frame(source: ModelSource, model: Any, tokenizer: Any) -> Frame:
    """Learn from the tokenizer what surrounds a text."""
    encoded = tokenizer(_PROBE_TEXT, return_special_tokens_mask=True)
    special = encoded["special_tokens_mask"]
    inner = [index for index, flag in enumerate(special) if not flag]
    ids = encoded["input_ids"]
    start, end = (inner[0], inner[-1] + 1) if inner else (len(ids), len(ids))
    # The position table may be shorter than the tokenizer's vocabulary, and the other way round.
    size = min(int(source.config.get("vocab_size", len(tokenizer))), len(tokenizer))
    ordinary = np.setdiff1d(np.arange(size), np.array(tokenizer.all_special_ids, dtype=np.int64))
    if not ordinary.size:
        raise ExportError("The tokenizer has special tokens only.", hint="Log it again.")
    return Frame(
        prefix=tuple(ids[:start]),
        suffix=tuple(ids[end:]),
        ordinary=ordinary,
        pad_id=tokenizer.pad_token_id or 0,
        segments=int(getattr(model.config, "type_vocab_size", 1) or 1),
        pad_left=tokenizer.padding_side == "left",
    )


def draw(source: ModelSource, frame: Frame) -> list[Encoded]:
    """Return inputs of many lengths up to the model's maximum, the same at every call."""
    rng = np.random.default_rng(_SEED)
    fewest = len(frame.prefix) + len(frame.suffix)
    return [*draw_inputs(frame, draw_lengths(source.max_tokens, fewest, rng), rng)]


def read_samples(source: ModelSource, tokenizer: Any, names: Sequence[str]) -> list[Encoded]:
    """Tokenise what the artifact says its inputs look like, if it does.

    Raises:
        ExportError: a line is no JSON object with a `text`.
    """
    path = source.path / SAMPLES_FILE
    if not path.is_file():
        return []
    with path.open("rb") as file:
        lines = file.read(_MAX_SAMPLES_BYTES).splitlines()
    samples = []
    for number, line in enumerate(lines[:_MAX_SAMPLES], start=1):
        try:
            sample = json.loads(line)
            text, pair = sample["text"], sample.get("text_pair")
            encoded = tokenizer(text, pair, truncation=True, max_length=source.max_tokens)
            samples.append({name: np.array(encoded[name], dtype=np.int64) for name in names})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ExportError(
                f"Line {number} of {SAMPLES_FILE} is not an object with a text: {error}",
                hint='One line is {"text": "…"} or {"text": "…", "text_pair": "…"}.',
            ) from error
    return [sample for sample in samples if sample["input_ids"].size]


def _run_torch(
    model: Any, inputs: Sequence[Encoded], names: Sequence[str], spec: TaskSpec
) -> list[Answer]:
    import torch

    answers = []
    with torch.inference_mode():
        for one in inputs:
            feeds = {name: torch.from_numpy(one[name][None]) for name in names}
            found = model(**feeds)
            outputs = {name: found[name].numpy() for name in spec.outputs}
            answers.append(cut(outputs, 0, len(one["input_ids"]), spec, pad_left=False))
    if not all(np.isfinite(output).all() for answer in answers for output in answer.values()):
        raise ExportError(
            "The model itself answers NaN or infinity.",
            hint="Training diverged, or the weights are damaged; take another version.",
        )
    return answers


def judge(directory: Path, emit: Emit) -> Success:
    """Answer the inputs of the evidence with ONNX Runtime and report how the answers compare."""
    evidence, inputs, reference = read_evidence(directory)
    emit(Progress(f"answering {len(inputs)} inputs with ONNX Runtime, alone and in batches"))
    started = time.perf_counter()
    alone, batched = _run_onnx(evidence, inputs)
    agreement = TASKS[evidence.request.task].agreement
    comparison = compare(reference, alone, batched, agreement, evidence.problem_type)
    seconds = evidence.torch_s + time.perf_counter() - started
    return Success(
        report=verdict(
            evidence.request,
            comparison,
            # These outputs have units or no bounds; float32 is exact to a share of their size.
            relative=evidence.problem_type == "regression" or agreement == "direction",
            lengths=[len(one["input_ids"]) for one in inputs],
            samples=evidence.samples,
            seconds=seconds,
        ),
        input_names=evidence.input_names,
        output_names=evidence.output_names,
        architecture=evidence.architecture,
        peak_memory_bytes=peak_memory_bytes(),
        fusions=evidence.fusions,
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
