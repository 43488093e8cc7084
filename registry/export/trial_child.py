"""The child that tries an export from elsewhere: load it, answer one long input, within limits.

`python -m registry.export.trial_child`, fed by `process.run_child`; needs no torch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from registry.errors import IntegrityError
from registry.export.channel import claimed_stdout, die_with_parent
from registry.export.confinement import confine, reported
from registry.export.evidence import MODEL_FILE
from registry.export.messages import Success, TrialRequest
from registry.export.store import Export, read_record
from registry.export.tasks import TASKS
from registry.export.verdict import peak_memory_bytes

_MAX_TOKENS = 2048


def main() -> None:
    """Work on one request."""
    with claimed_stdout() as emit:
        request = msgspec.json.decode(sys.stdin.buffer.readline(), type=TrialRequest)
        die_with_parent()
        confine(request)
        reported(request, emit, lambda: emit(_try(request)))


def _try(request: TrialRequest) -> Success:
    export = read_record(Path(request.directory))
    if export is None:
        raise IntegrityError("The export's record cannot be read.")
    if export.engine == "openvino":
        _try_openvino(export, request.threads)
    else:
        _try_onnx(export, request.threads)
    return Success(
        report=export.report,
        input_names=export.input_names,
        output_names=export.output_names,
        architecture=export.architecture,
        peak_memory_bytes=peak_memory_bytes(),
    )


def _try_openvino(export: Export, threads: int) -> None:
    from registry.export.openvino_model import open_openvino

    model = open_openvino(export.path, export.precision, threads=threads)
    _check_names(export, model.input_names)
    if TASKS[export.task].form == "text":
        model.run(model.requests[0], _longest(export))


def _try_onnx(export: Export, threads: int) -> None:
    from registry.export.session import open_session

    if TASKS[export.task].form == "seq2seq":
        _try_seq2seq(export, threads)
        return
    if TASKS[export.task].form == "generation":
        _try_cached(export, threads)
        return
    if not (export.path / MODEL_FILE).is_file():
        return
    session = open_session(export.path / MODEL_FILE, threads=threads)
    _check_names(export, tuple(value.name for value in session.get_inputs()))
    feeds = _longest(export) if TASKS[export.task].form == "text" else _sensed(export)
    try:
        session.run(None, dict(feeds))
    # ONNX Runtime's exceptions share no base class of their own.
    except Exception as error:
        raise IntegrityError(f"It fails on its longest input: {str(error)[:300]}") from error


def _try_seq2seq(export: Export, threads: int) -> None:
    from registry.export.seq2seq_run import open_encoder_decoder

    graphs = open_encoder_decoder(export.path, threads=threads)
    longest = np.zeros(max(1, min(export.max_tokens, _MAX_TOKENS)), dtype=np.int64)
    first = np.zeros(1, dtype=np.int64)
    try:
        source = graphs.encode([longest], 0)
        graphs.decode(first, np.ones((1, 1), dtype=np.int64), source, graphs.empty_cache(1))
    # ONNX Runtime's exceptions share no base class of their own.
    except Exception as error:
        raise IntegrityError(f"It fails on its longest input: {str(error)[:300]}") from error


def _try_cached(export: Export, threads: int) -> None:
    from registry.export.cached_session import open_cached_session

    longest = max(1, min(export.max_tokens, _MAX_TOKENS))
    session = open_cached_session(
        export.path / MODEL_FILE, threads=threads, rows=1, capacity_tokens=longest
    )
    try:
        session.run(0, [[0] * longest], [0])
    # ONNX Runtime's exceptions share no base class of their own.
    except Exception as error:
        raise IntegrityError(f"It fails on its longest input: {str(error)[:300]}") from error


def _sensed(export: Export) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """Return a second of silence, or a grey image, as the export's own settings size it."""
    from registry.export.preprocessing import read_audio_settings, read_image_settings

    if TASKS[export.task].form == "audio":
        shape: tuple[int, ...] = (1, read_audio_settings(export.path).sampling_rate)
    else:
        shape = (1, 3, *read_image_settings(export.path).output_size)
    return {name: np.zeros(shape, dtype=np.float32) for name in export.input_names}


def _check_names(export: Export, found: tuple[str, ...]) -> None:
    if set(found) != set(export.input_names):
        raise IntegrityError("Its graph has other inputs than its record says.")


def _longest(export: Export) -> Mapping[str, Any]:
    shape = (1, max(1, min(export.max_tokens, _MAX_TOKENS)))
    return {
        name: (np.ones if name == "attention_mask" else np.zeros)(shape, dtype=np.int64)
        for name in export.input_names
    }


if __name__ == "__main__":
    main()
    sys.stderr.flush()
    # Native threads need not be unwound; all that matters was said.
    os._exit(0)
