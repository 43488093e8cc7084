"""The exporting child, first half: load, answer with torch, convert, write.

`python -m registry.export.child`, fed by `process.run_child`: limits itself before it imports
torch, reads one request from stdin and works in its current directory. When the export is written
it turns into `registry.export.compare` by `exec`: the same process to its parent, but torch and the
weights are gone from memory when ONNX Runtime loads its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from registry.errors import ExportError, RegistryError, StorageError
from registry.export.channel import Emit, claimed_stdout, die_with_parent
from registry.export.evidence import MODEL_FILE, Evidence, write_evidence
from registry.export.messages import ChildRequest, Failure, Progress
from registry.export.parity import Answer, Encoded, Frame, cut, draw_inputs, draw_lengths
from registry.export.sentence import write_sentence_modules
from registry.export.source import ModelSource, read_source
from registry.export.tasks import TaskSpec

SAMPLES_FILE = "samples.jsonl"
_MAX_SAMPLES = 256
_MAX_SAMPLES_BYTES = 4 * 1024 * 1024
_SEED = 20
_PROBE_TEXT = "a"


def main() -> bool:
    """Work on one request; return whether there is an export to be compared."""
    with claimed_stdout() as emit:
        request = msgspec.json.decode(sys.stdin.buffer.readline(), type=ChildRequest)
        die_with_parent()
        _limit(request)
        sys.addaudithook(_forbid_network)
        try:
            _convert(request, emit)
        except RegistryError as error:
            emit(Failure(**error.as_dict()))
            return False
        except MemoryError:
            emit(Failure(ExportError.code, *_out_of_memory(request)))
            return False
        except OSError as error:
            emit(Failure(StorageError.code, *_no_storage(error)))
            return False
    return True


def _limit(request: ChildRequest) -> None:
    for kind, limit in (
        (resource.RLIMIT_AS, request.memory_limit_bytes),
        (resource.RLIMIT_CPU, request.cpu_limit_s),
        (resource.RLIMIT_FSIZE, request.file_limit_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        # A lower limit of the surroundings stays, also where root could raise it.
        lower = [now for now in resource.getrlimit(kind) if now != resource.RLIM_INFINITY]
        allowed = min([limit, *lower])
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (allowed, allowed))


def _forbid_network(event: str, _arguments: tuple[Any, ...]) -> None:
    if event in {"socket.connect", "socket.getaddrinfo", "socket.bind", "socket.sendto"}:
        raise PermissionError("an export uses no network")


def _out_of_memory(request: ChildRequest) -> tuple[str, str]:
    return (
        f"The export needs more than {request.memory_limit_bytes / 2**30:.0f} GiB of memory.",
        "Does config.json fit the weights? A far larger model than its weights needs this much.",
    )


def _no_storage(error: OSError) -> tuple[str, str]:
    return (
        f"The export cannot be written: {error.strerror or error}.",
        "Free space, or point RUNPORT_CACHE_DIR at another disk.",
    )


def _convert(request: ChildRequest, emit: Emit) -> None:
    """Write the export's files, and the evidence that they are to be compared with."""
    source = read_source(Path(request.model_dir), request.task)
    output_dir = Path(request.output_dir)
    emit(Progress("loading the model"))
    from registry.export.graph import export_graph
    from registry.export.onnx_file import write_model
    from registry.export.torch_model import load_torch_model, model_inputs

    model, tokenizer = load_torch_model(source, threads=request.threads)
    names = model_inputs(source, model, tokenizer)
    tokenizer.save_pretrained(output_dir)
    if "sentence_transformers" in source.config:
        model.config.sentence_transformers = source.config["sentence_transformers"]
    model.config.to_json_file(output_dir / "config.json", use_diff=False)
    if source.sentence is not None:
        write_sentence_modules(source.sentence, output_dir)
    frame = _frame(source, model, tokenizer)
    samples = _samples(source, tokenizer, names)
    inputs = [*samples, *_drawn(source, frame)]
    emit(Progress(f"answering {len(inputs)} inputs with torch"))
    started = time.perf_counter()
    reference = _run_torch(model, inputs, names, source.task)
    torch_s = time.perf_counter() - started
    emit(Progress("tracing and converting to ONNX"))
    graph = export_graph(model, source.task, names, max_tokens=source.max_tokens)
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
    )
    write_model(graph, output_dir / MODEL_FILE)
    write_evidence(Path.cwd(), evidence, inputs, reference)


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


if __name__ == "__main__":
    if main():
        # stdin and stdout stay as they are: the second half speaks to the same parent.
        os.execv(  # noqa: S606 - our own module, by absolute interpreter path
            sys.executable, [sys.executable, "-P", "-m", "registry.export.compare"]
        )
    sys.stderr.flush()
    # Native threads of torch need not be unwound; all that matters was said.
    os._exit(0)
