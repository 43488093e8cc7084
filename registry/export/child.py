"""The exporting child: `python -m registry.export.child`, fed by `process.run_child`.

Limits itself before it imports torch, reads one request from stdin, says what it does on stdout as
JSON lines, and dies when stdin ends: then its parent is gone. Everything that torch and its friends
print goes to stderr.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import platform
import resource
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np

from registry.errors import ExportError, RegistryError
from registry.export.messages import ChildRequest, Failure, FromChild, Progress, Success
from registry.export.parity import (
    Comparison,
    Encoded,
    Frame,
    Logits,
    compare,
    draw_inputs,
    draw_lengths,
    pad,
    plan_batches,
)
from registry.export.report import ParityReport
from registry.export.source import ModelSource, read_source

MODEL_FILE = "model.onnx"
SAMPLES_FILE = "samples.jsonl"
_MAX_SAMPLES = 256
_MAX_SAMPLES_BYTES = 4 * 1024 * 1024
_SEED = 20
_PROBE_TEXT = "a"

Emit = Callable[[FromChild], None]


def main() -> int:
    """Answer one request; the exit status is 0 whenever an answer was given."""
    channel = _claim_stdout()

    def emit(message: FromChild) -> None:
        channel.write(msgspec.json.encode(message) + b"\n")
        channel.flush()

    request = msgspec.json.decode(sys.stdin.buffer.readline(), type=ChildRequest)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _limit(request)
    sys.addaudithook(_forbid_network)
    try:
        emit(_export(request, emit))
    except RegistryError as error:
        emit(Failure(**error.as_dict()))
    except MemoryError:
        emit(Failure(ExportError.code, *_out_of_memory(request)))
    return 0


def _claim_stdout() -> BinaryIO:
    """Return the real stdout and point descriptor 1 at stderr."""
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return channel


def _die_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def _limit(request: ChildRequest) -> None:
    for kind, limit in (
        (resource.RLIMIT_AS, request.memory_limit_bytes),
        (resource.RLIMIT_CPU, request.cpu_limit_s),
        (resource.RLIMIT_FSIZE, request.file_limit_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        # A lower hard limit of the surroundings stays: it is as good.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (limit, limit))


def _forbid_network(event: str, _arguments: tuple[Any, ...]) -> None:
    if event in {"socket.connect", "socket.getaddrinfo", "socket.bind", "socket.sendto"}:
        raise PermissionError("an export uses no network")


def _out_of_memory(request: ChildRequest) -> tuple[str, str]:
    return (
        f"The export needs more than {request.memory_limit_bytes / 2**30:.0f} GiB of memory.",
        "Does config.json fit the weights? A far larger model than its weights needs this much.",
    )


def _export(request: ChildRequest, emit: Emit) -> Success:
    source = read_source(Path(request.model_dir), request.task)
    output_dir = Path(request.output_dir)
    emit(Progress("loading the model"))
    from registry.export.graph import export_graph
    from registry.export.onnx_file import write_model
    from registry.export.torch_model import load_torch_model, model_inputs

    model, tokenizer = load_torch_model(source, threads=request.threads)
    names = model_inputs(source, model, tokenizer)
    tokenizer.save_pretrained(output_dir)
    model.config.to_json_file(output_dir / "config.json", use_diff=False)
    architecture, problem_type = type(model).__name__, model.config.problem_type
    frame = _frame(source, model, tokenizer)
    samples = _samples(source, tokenizer, names)
    inputs = [*samples, *_drawn(source, frame)]
    emit(Progress(f"answering {len(inputs)} inputs with torch"))
    started = time.perf_counter()
    reference = _run_torch(model, inputs, names)
    torch_s = time.perf_counter() - started
    emit(Progress("tracing and converting to ONNX"))
    graph = export_graph(model, source.task, names, max_tokens=source.max_tokens)
    outputs = tuple(str(value.name) for value in graph.graph.outputs)
    write_model(graph, output_dir / MODEL_FILE)
    # Torch's weights are not needed any more; ONNX Runtime is about to load its own.
    del model, graph
    gc.collect()
    emit(Progress(f"answering {len(inputs)} inputs with ONNX Runtime, alone and in batches"))
    started = time.perf_counter()
    alone, batched = _run_onnx(output_dir / MODEL_FILE, inputs, frame, request.threads)
    comparison = compare(reference, alone, batched, problem_type)
    seconds = torch_s + time.perf_counter() - started
    report = _report(request, comparison, inputs, len(samples), problem_type, seconds)
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Success(
        report=report,
        input_names=names,
        output_names=outputs,
        architecture=architecture,
        peak_memory_bytes=peak_kib * 1024,
    )


def _frame(source: ModelSource, model: Any, tokenizer: Any) -> Frame:
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


def _drawn(source: ModelSource, frame: Frame) -> list[Encoded]:
    rng = np.random.default_rng(_SEED)
    fewest = len(frame.prefix) + len(frame.suffix)
    return [*draw_inputs(frame, draw_lengths(source.max_tokens, fewest, rng), rng)]


def _samples(source: ModelSource, tokenizer: Any, names: Sequence[str]) -> list[Encoded]:
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


def _run_torch(model: Any, inputs: Sequence[Encoded], names: Sequence[str]) -> list[Logits]:
    import torch

    answers = []
    with torch.inference_mode():
        for one in inputs:
            feeds = {name: torch.from_numpy(one[name][None]) for name in names}
            answers.append(model(**feeds).logits[0].numpy().copy())
    if not all(np.isfinite(logits).all() for logits in answers):
        raise ExportError(
            "The model itself answers NaN or infinity.",
            hint="Training diverged, or the weights are damaged; take another version.",
        )
    return answers


def _run_onnx(
    path: Path, inputs: Sequence[Encoded], frame: Frame, threads: int
) -> tuple[list[Logits], list[tuple[int, Logits]]]:
    from registry.export.session import open_session

    session = open_session(path, threads=threads)
    names = [value.name for value in session.get_inputs()]

    def run(batch: Mapping[str, Any]) -> Logits:
        logits: Logits = session.run(["logits"], dict(batch))[0]
        return logits

    alone = [run(pad([one], names, frame))[0] for one in inputs]
    batched = []
    for indices in plan_batches([len(one["input_ids"]) for one in inputs]):
        logits = run(pad([inputs[index] for index in indices], names, frame))
        batched += [(index, logits[row]) for row, index in enumerate(indices)]
    return alone, batched


def _report(
    request: ChildRequest,
    comparison: Comparison,
    inputs: Sequence[Encoded],
    samples: int,
    problem_type: str | None,
    seconds: float,
) -> ParityReport:
    allowed = request.tolerance
    if problem_type == "regression":
        # A regression's outputs have units; float32 is exact to a share of their size.
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
        samples=samples,
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
    # Native threads of torch and ONNX Runtime need not be unwound; all that matters was said.
    os._exit(status)
