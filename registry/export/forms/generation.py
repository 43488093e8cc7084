"""Decoders that grow a text token by token: converted with their cache, compared over a few steps.

Every input is a prompt. Torch answers it and the greedy steps after it, with transformers' own
cache, and the export has to equal that: with its prompt in one part or in several, alone and beside
prompts of other lengths.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from registry.errors import ExportError
from registry.export.cached_session import CachedSession, check_runtime, open_cached_session
from registry.export.channel import Emit
from registry.export.comparison import compare
from registry.export.evidence import MODEL_FILE, Evidence, read_evidence, write_evidence
from registry.export.forms.text import draw, read_frame, read_samples
from registry.export.messages import ChildRequest, Progress, Success
from registry.export.parity import Answer, Encoded, Output, plan_batches
from registry.export.source import ModelSource
from registry.export.verdict import peak_memory_bytes, verdict

STEPS = 4
"""Greedy steps after each prompt that are compared."""

_MOST_INPUTS = 40  # their logits are kept: a vocabulary of floats for each step
_MOST_ROWS = 8
_PARTED_TOKENS = 24  # prompts of more are run in two parts when alone
_NAMES = ("input_ids",)

Tokens: TypeAlias = Sequence[int]


def convert(request: ChildRequest, source: ModelSource, emit: Emit) -> None:
    """Write the export's files, and the evidence that they are to be compared with."""
    output_dir = Path(request.output_dir)
    import onnxruntime

    # Before all the work: the comparison at its end runs the graph.
    check_runtime(onnxruntime.__version__)
    emit(Progress("loading the model"))
    from registry.export.cached_graph import export_cached_graph
    from registry.export.onnx_file import write_model
    from registry.export.torch_model import load_torch_model

    model, tokenizer = load_torch_model(source, threads=request.threads)
    tokenizer.save_pretrained(output_dir)
    architecture = type(model).__name__
    model.config.to_json_file(output_dir / "config.json", use_diff=False)
    model.generation_config.to_json_file(output_dir / "generation_config.json")
    frame = read_frame(source, model, tokenizer)
    samples = read_samples(source, tokenizer, _NAMES)
    prompts = [_shortened(one, source.max_tokens) for one in [*samples, *_drawn(source, frame)]]
    emit(Progress(f"answering {len(prompts)} prompts with torch"))
    started = time.perf_counter()
    reference = [_answer(model, one["input_ids"]) for one in prompts]
    torch_s = time.perf_counter() - started
    emit(Progress("tracing and converting to ONNX"))
    graph = export_cached_graph(model, max_tokens=source.max_tokens)
    evidence = Evidence(
        request=request,
        input_names=_NAMES,
        output_names=("logits",),
        architecture=architecture,
        problem_type=None,
        pad_id=frame.pad_id,
        pad_left=False,
        inputs=len(prompts),
        samples=len(samples),
        torch_s=torch_s,
    )
    write_model(graph, output_dir / MODEL_FILE)
    write_evidence(Path.cwd(), evidence, prompts, reference)


def _drawn(source: ModelSource, frame: Any) -> list[Encoded]:
    drawn = [one for one in draw(source, frame) if len(one["input_ids"])]
    if len(drawn) <= _MOST_INPUTS:
        return drawn
    return [drawn[index] for index in np.linspace(0, len(drawn) - 1, _MOST_INPUTS).astype(int)]


def _shortened(prompt: Encoded, max_tokens: int) -> Encoded:
    """Leave room for the steps."""
    return {"input_ids": prompt["input_ids"][: max(1, max_tokens - STEPS)]}


def _answer(model: Any, prompt: Any) -> Answer:
    """Return torch's logits after the prompt and after each greedy step: (1 + STEPS, words)."""
    import torch

    ids = torch.from_numpy(np.array(prompt))[None]
    logits: list[Output] = []
    past = None
    with torch.inference_mode():
        for _ in range(1 + STEPS):
            found = model(input_ids=ids, past_key_values=past, use_cache=True, logits_to_keep=1)
            last, past = found.logits[0, -1], found.past_key_values
            logits.append(last.numpy())
            ids = last.argmax()[None, None]
    if not np.isfinite(logits).all():
        raise ExportError(
            "The model itself answers NaN or infinity.",
            hint="Training diverged, or the weights are damaged; take another version.",
        )
    return {"logits": np.stack(logits)}


def judge(directory: Path, emit: Emit) -> Success:
    """Answer the prompts of the evidence with ONNX Runtime and report how the answers compare."""
    evidence, inputs, reference = read_evidence(directory)
    prompts = [one["input_ids"].tolist() for one in inputs]
    emit(Progress(f"answering {len(prompts)} prompts with ONNX Runtime, alone and in batches"))
    started = time.perf_counter()
    session = open_cached_session(
        Path(evidence.request.output_dir, MODEL_FILE),
        threads=evidence.request.threads,
        rows=_MOST_ROWS,
        capacity_tokens=max(map(len, prompts)) + STEPS,
    )
    # What torch chose is fed, so that one difference is not counted in all steps after it.
    chosen = [one["logits"].argmax(axis=-1).tolist() for one in reference]
    alone = [_alone(session, *one) for one in zip(prompts, chosen, strict=True)]
    batched: list[tuple[int, Answer]] = []
    for indices in plan_batches([len(one) for one in prompts]):
        answers = _together(
            session, [prompts[index] for index in indices], [chosen[index] for index in indices]
        )
        batched += zip(indices, answers, strict=True)
    comparison = compare(reference, alone, batched, "tokens", None)
    return Success(
        report=verdict(
            evidence.request,
            comparison,
            # A vocabulary's logits have no bounds; float32 is exact to a share of their size.
            relative=True,
            lengths=[len(one) for one in prompts],
            samples=evidence.samples,
            seconds=evidence.torch_s + time.perf_counter() - started,
        ),
        input_names=evidence.input_names,
        output_names=evidence.output_names,
        architecture=evidence.architecture,
        peak_memory_bytes=peak_memory_bytes(),
    )


def _alone(session: CachedSession, prompt: Tokens, chosen: Tokens) -> Answer:
    half = len(prompt) // 2 if len(prompt) > _PARTED_TOKENS else 0
    if half:
        session.run(0, [prompt[:half]], [0])
    logits = [session.run(0, [prompt[half:]], [half])]
    logits += [session.run(0, [[chosen[step]]], [len(prompt) + step]) for step in range(STEPS)]
    return {"logits": np.concatenate(logits)}


def _together(
    session: CachedSession, prompts: Sequence[Tokens], chosen: Sequence[Tokens]
) -> list[Answer]:
    logits = [session.run(0, prompts, [0] * len(prompts))]
    for step in range(STEPS):
        tokens = [[one[step]] for one in chosen]
        logits.append(session.run(0, tokens, [len(one) + step for one in prompts]))
    return [{"logits": np.stack([one[row] for one in logits])} for row in range(len(prompts))]
