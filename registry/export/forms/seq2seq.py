"""Models that rewrite a text, with encoder and decoder: converted, and compared step by step.

Torch answers with all tokens of a target at once and without a cache; the export one token at a
time with its cache, alone and in batches of sources and targets of mixed lengths. Half of the
targets are what torch itself writes greedily: where every one of its steps has the same best token,
the greedy text is the same.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from registry.errors import ExportError
from registry.export.channel import Emit
from registry.export.comparison import compare
from registry.export.evidence import Evidence, read_evidence, write_evidence
from registry.export.forms.text import draw, read_frame, read_samples
from registry.export.messages import ChildRequest, Progress, Success
from registry.export.parity import Answer, Encoded, plan_batches
from registry.export.seq2seq_run import (
    DECODER_FILE,
    ENCODER_FILE,
    EncoderDecoder,
    open_encoder_decoder,
)
from registry.export.seq2seq_settings import max_target_tokens
from registry.export.source import ModelSource
from registry.export.tasks import TASKS
from registry.export.verdict import peak_memory_bytes, verdict

_SEED = 22
_TARGET_TOKENS = (1, 2, 5, 9, 16)
_LONG_TARGET_TOKENS = 144  # beyond the largest distance that T5 tells apart
_LONG_TARGETS = 2
_MOST_COMPARED = 8
_COMPARED_NUMBERS = 500_000  # logits of one input: a vocabulary may have 250 000 tokens


def convert(request: ChildRequest, source: ModelSource, emit: Emit) -> None:
    """Write the export's files, and the evidence that they are to be compared with."""
    output_dir = Path(request.output_dir)
    emit(Progress("loading the model"))
    from registry.export.onnx_file import write_model
    from registry.export.seq2seq_model import (
        DecoderPart,
        EncoderPart,
        cache_shape,
        check_kind,
        export_decoder,
        export_encoder,
        share_tables,
        shared_tables,
        with_row_positions,
    )
    from registry.export.torch_model import load_torch_model

    model, tokenizer = load_torch_model(source, threads=request.threads)
    check_kind(model)
    _write_settings(model, tokenizer, output_dir)
    frame = read_frame(source, model, tokenizer)
    samples = read_samples(source, tokenizer, source.task.inputs)
    inputs = [*samples, *draw(source, frame)]
    longest = max_target_tokens(source.config)
    emit(Progress(f"answering {len(inputs)} inputs with torch"))
    started = time.perf_counter()
    inputs = _with_targets(model, inputs, frame.ordinary, longest)
    reference = [_torch_answer(model, one) for one in inputs]
    torch_s = time.perf_counter() - started
    _check_finite(reference)
    evidence = Evidence(
        request=request,
        input_names=("input_ids", "decoder_input_ids"),
        output_names=source.task.outputs,
        architecture=type(model).__name__,
        problem_type=None,
        pad_id=frame.pad_id,
        pad_left=False,
        inputs=len(inputs),
        samples=len(samples),
        torch_s=torch_s,
    )
    write_evidence(Path.cwd(), evidence, inputs, reference)
    positions, shape = with_row_positions(model), cache_shape(model)
    emit(Progress("tracing and converting the encoder to ONNX"))
    encoder = export_encoder(EncoderPart(model, positions), max_tokens=source.max_tokens)
    tables = shared_tables(encoder)
    places = write_model(encoder, output_dir / ENCODER_FILE)
    emit(Progress("tracing and converting the decoder to ONNX"))
    part = DecoderPart(model, positions, shape[0])
    decoder = export_decoder(part, shape, max_source=source.max_tokens, max_target=longest)
    names = share_tables(decoder, tables)
    lent = {name: places[name] for name in names if name in places}
    write_model(decoder, output_dir / DECODER_FILE, lent)


def _write_settings(model: Any, tokenizer: Any, output_dir: Path) -> None:
    tokenizer.save_pretrained(output_dir)
    model.config.to_json_file(output_dir / "config.json", use_diff=False)
    # As it was resolved on loading: in older versions config.json has it.
    settings = {
        name: value
        for name, value in model.generation_config.to_dict().items()
        if value is not None and not name.startswith("_")
    }
    (output_dir / "generation_config.json").write_text(json.dumps(settings, indent=2), "utf-8")


def _with_targets(
    model: Any, inputs: Sequence[Encoded], ordinary: np.ndarray[Any, Any], longest: int
) -> list[Encoded]:
    """Add `decoder_input_ids`: by turns what torch writes greedily, and tokens drawn."""
    rng = np.random.default_rng(_SEED)
    settings = model.generation_config
    start = settings.decoder_start_token_id
    start = settings.bos_token_id if start is None else start
    many: list[Encoded] = []
    for index, one in enumerate(inputs):
        size = _TARGET_TOKENS[index // 2 % len(_TARGET_TOKENS)]
        if index < 2 * _LONG_TARGETS and index % 2 == 0:
            size = _LONG_TARGET_TOKENS
        size = min(size, longest)
        if index % 2:
            target = np.concatenate([[start], rng.choice(ordinary, size - 1)])
        else:
            target = _greedy(model, one, start, size)
        many.append({"input_ids": one["input_ids"], "decoder_input_ids": target.astype(np.int64)})
    return many


def _greedy(model: Any, one: Encoded, start: int, size: int) -> np.ndarray[Any, Any]:
    import torch

    ids = torch.from_numpy(one["input_ids"][None])
    mask, target, cache = torch.ones_like(ids), [start], None
    with torch.inference_mode():
        states = model.get_encoder()(input_ids=ids, attention_mask=mask)
        while len(target) < size:
            found = model(
                encoder_outputs=states,
                attention_mask=mask,
                decoder_input_ids=torch.tensor([target[-1:]]),
                past_key_values=cache,
                use_cache=True,
            )
            cache = found.past_key_values
            target.append(int(found.logits[0, -1].argmax()))
    return np.array(target)


def _torch_answer(model: Any, one: Encoded) -> Answer:
    import torch

    ids, target = (torch.from_numpy(one[name][None]) for name in one)
    with torch.inference_mode():
        logits = model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            decoder_input_ids=target,
            use_cache=False,
        ).logits[0]
    return {"logits": logits[_places(one, logits.shape[-1])].numpy().astype(np.float32)}


def _places(one: Encoded, vocabulary: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return which tokens of the target are compared: all of a short one, else evenly spread."""
    count = min(max(_COMPARED_NUMBERS // vocabulary, 2), _MOST_COMPARED)
    size = len(one["decoder_input_ids"])
    return np.unique(np.linspace(0, size - 1, count).astype(np.int64))


def _check_finite(reference: Sequence[Answer]) -> None:
    if not all(np.isfinite(output).all() for answer in reference for output in answer.values()):
        raise ExportError(
            "The model itself answers NaN or infinity.",
            hint="Training diverged, or the weights are damaged; take another version.",
        )


def judge(directory: Path, emit: Emit) -> Success:
    """Answer the inputs of the evidence with ONNX Runtime and report how the answers compare."""
    evidence, inputs, reference = read_evidence(directory)
    emit(Progress(f"answering {len(inputs)} inputs with ONNX Runtime, alone and in batches"))
    started = time.perf_counter()
    graphs = open_encoder_decoder(
        Path(evidence.request.output_dir), threads=evidence.request.threads
    )
    alone = [_answers(graphs, [one], evidence.pad_id)[0] for one in inputs]
    batched: list[tuple[int, Answer]] = []
    for indices in plan_batches([len(one["input_ids"]) for one in inputs]):
        rows = [inputs[index] for index in indices]
        batched += zip(indices, _answers(graphs, rows, evidence.pad_id), strict=True)
    agreement = TASKS[evidence.request.task].agreement
    comparison = compare(reference, alone, batched, agreement, evidence.problem_type)
    return Success(
        report=verdict(
            evidence.request,
            comparison,
            relative=True,  # logits of a vocabulary have no bounds
            lengths=[len(one["input_ids"]) for one in inputs],
            samples=evidence.samples,
            seconds=evidence.torch_s + time.perf_counter() - started,
        ),
        input_names=TASKS[evidence.request.task].inputs,
        output_names=evidence.output_names,
        architecture=evidence.architecture,
        peak_memory_bytes=peak_memory_bytes(),
    )


def _answers(graphs: EncoderDecoder, rows: Sequence[Encoded], pad_id: int) -> list[Answer]:
    """Feed the targets of these rows token by token; return the logits at the compared places."""
    longest = max(len(one["decoder_input_ids"]) for one in rows)
    starts = [longest - len(one["decoder_input_ids"]) for one in rows]
    targets = np.full((len(rows), longest), pad_id, dtype=np.int64)
    mask = np.zeros_like(targets)
    for row, (one, start) in enumerate(zip(rows, starts, strict=True)):
        targets[row, start:] = one["decoder_input_ids"]
        mask[row, start:] = 1
    source = graphs.encode([one["input_ids"] for one in rows], pad_id)
    past = graphs.empty_cache(len(rows))
    kept: list[list[np.ndarray[Any, Any]]] = [[] for _ in rows]
    for step in range(longest):
        logits, past = graphs.decode(targets[:, step], mask[:, : step + 1], source, past)
        for row, (one, start) in enumerate(zip(rows, starts, strict=True)):
            if step - start in _places(one, logits.shape[-1]):
                kept[row].append(logits[row].copy())
    return [{"logits": np.stack(logits).astype(np.float32)} for logits in kept]
