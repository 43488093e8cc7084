"""Export: a snapshot becomes a graph that needs neither torch nor transformers, with proof.

    source.py       a model directory, read and checked; no torch
    tasks.py        task name -> auto class, inputs, outputs
    lengths.py      the longest input a model takes
    safetensors.py  header check; nothing is loaded
    store.py        the exports folder: keys, find, verify, commit
    samples.py      texts to calibrate and judge on
    publish.py      an export back to W&B
    received.py     an export from elsewhere, checked (onnx_content, trial_child) before it serves
    report.py       the parity report
    candidates.py   engines and precisions, and which of them this machine can run
    export.py       find or make an export (parent side)
    derive.py       the same for other precisions and engines, from the fp32 export
    derive_child.py the work of that; needs no torch
    process.py      the child process: deadline, limits, errors
    child.py        the child, first half: the only part that needs torch
    compare.py      the child, second half: answers with ONNX Runtime
    forms/          how models of one form are converted and compared
    adapter.py      a PEFT adapter with its base model: checks, merging
    torch_model.py  safe loading with transformers
    graph.py        transformers' exporter, dynamic shapes
    cached_graph.py, cached_session.py  a decoder with its cache: traced; run
    onnx_file.py    a model written as one ONNX file, in flat memory
    preprocessing.py what makes an input of a waveform or an image
    unpadded.py     models whose rows have one shape in a batch
    parity.py       inputs drawn over the vocabulary, batches of them
    comparison.py   differences and agreement, by task
    verdict.py      the report of a comparison
    dense.py        the dense layers behind an embedding
    seq2seq_*.py    models with encoder and decoder: settings, torch's half, running the graphs
    sentence.py     what sentence-transformers does around a model
    openvino_model.py  OpenVINO's own files and compiled model, likewise
    session.py      the ONNX Runtime session, the same here and in serving

Importing this package imports none of them: names are loaded on use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from registry.export.cached_session import CachedSession, open_cached_session
    from registry.export.candidates import (
        CANDIDATES,
        Candidate,
        find_candidate,
        usable_candidates,
        why_unusable,
    )
    from registry.export.dense import DenseLayer
    from registry.export.derive import DEFAULT_LOSSY_TOLERANCE, DEFAULT_MIN_AGREEMENT
    from registry.export.export import DEFAULT_TIMEOUT_S, DEFAULT_TOLERANCE, export_model
    from registry.export.lengths import max_tokens
    from registry.export.openvino_model import OpenVinoModel, open_openvino
    from registry.export.preprocessing import (
        AudioSettings,
        ImageSettings,
        fewest_samples,
        frame_stride,
        model_frames,
        read_audio_settings,
        read_image_settings,
    )
    from registry.export.publish import push_export
    from registry.export.received import check_export
    from registry.export.report import ParityReport
    from registry.export.safetensors import read_tensors
    from registry.export.samples import find_samples
    from registry.export.sentence import (
        SentenceModules,
        read_cross_encoder,
        read_sentence_modules,
    )
    from registry.export.seq2seq_run import EncodedSource, EncoderDecoder, open_encoder_decoder
    from registry.export.seq2seq_settings import (
        generation_settings,
        max_target_tokens,
        translation_tasks,
    )
    from registry.export.seq2seq_torch import load_encoder_decoder
    from registry.export.session import open_session
    from registry.export.source import ModelSource, read_source
    from registry.export.store import Export, Refusal, find_export, find_refusal, list_records
    from registry.export.tasks import TASKS, task_in, task_of
    from registry.export.torch_model import load_torch_model, model_inputs

_PUBLIC = {
    "CANDIDATES": "candidates",
    "CachedSession": "cached_session",
    "Candidate": "candidates",
    "DEFAULT_LOSSY_TOLERANCE": "derive",
    "DEFAULT_MIN_AGREEMENT": "derive",
    "DEFAULT_TIMEOUT_S": "export",
    "DEFAULT_TOLERANCE": "export",
    "DenseLayer": "dense",
    "EncodedSource": "seq2seq_run",
    "EncoderDecoder": "seq2seq_run",
    "Export": "store",
    "ModelSource": "source",
    "OpenVinoModel": "openvino_model",
    "ParityReport": "report",
    "Refusal": "store",
    "SentenceModules": "sentence",
    "TASKS": "tasks",
    "check_export": "received",
    "export_model": "export",
    "find_candidate": "candidates",
    "find_export": "store",
    "find_refusal": "store",
    "find_samples": "samples",
    "generation_settings": "seq2seq_settings",
    "list_records": "store",
    "load_encoder_decoder": "seq2seq_torch",
    "load_torch_model": "torch_model",
    "max_target_tokens": "seq2seq_settings",
    "max_tokens": "lengths",
    "model_inputs": "torch_model",
    "open_cached_session": "cached_session",
    "open_encoder_decoder": "seq2seq_run",
    "open_openvino": "openvino_model",
    "AudioSettings": "preprocessing",
    "ImageSettings": "preprocessing",
    "fewest_samples": "preprocessing",
    "frame_stride": "preprocessing",
    "model_frames": "preprocessing",
    "read_audio_settings": "preprocessing",
    "read_image_settings": "preprocessing",
    "open_session": "session",
    "push_export": "publish",
    "read_cross_encoder": "sentence",
    "read_sentence_modules": "sentence",
    "read_source": "source",
    "read_tensors": "safetensors",
    "task_in": "tasks",
    "task_of": "tasks",
    "translation_tasks": "seq2seq_settings",
    "usable_candidates": "candidates",
    "why_unusable": "candidates",
}

__all__ = [
    "CANDIDATES",
    "DEFAULT_LOSSY_TOLERANCE",
    "DEFAULT_MIN_AGREEMENT",
    "DEFAULT_TIMEOUT_S",
    "DEFAULT_TOLERANCE",
    "TASKS",
    "AudioSettings",
    "CachedSession",
    "Candidate",
    "DenseLayer",
    "EncodedSource",
    "EncoderDecoder",
    "Export",
    "ImageSettings",
    "ModelSource",
    "OpenVinoModel",
    "ParityReport",
    "Refusal",
    "SentenceModules",
    "check_export",
    "export_model",
    "fewest_samples",
    "find_candidate",
    "find_export",
    "find_refusal",
    "find_samples",
    "frame_stride",
    "generation_settings",
    "list_records",
    "load_encoder_decoder",
    "load_torch_model",
    "max_target_tokens",
    "max_tokens",
    "model_frames",
    "model_inputs",
    "open_cached_session",
    "open_encoder_decoder",
    "open_openvino",
    "open_session",
    "push_export",
    "read_audio_settings",
    "read_cross_encoder",
    "read_image_settings",
    "read_sentence_modules",
    "read_source",
    "read_tensors",
    "task_in",
    "task_of",
    "translation_tasks",
    "usable_candidates",
    "why_unusable",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
