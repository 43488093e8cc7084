"""Models with encoder and decoder: exports that equal torch, and the settings they come with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from registry import (
    Export,
    UnsafeContentError,
    check_export,
    generation_settings,
    load_encoder_decoder,
    max_target_tokens,
    open_encoder_decoder,
    read_source,
    task_of,
    translation_tasks,
)
from registry.export.seq2seq_run import DECODER_FILE, ENCODER_FILE, EncoderDecoder


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_exports_equal_torch_step_by_step(seq2seq_exports: dict[str, Export], name: str) -> None:
    export = seq2seq_exports[name]
    report = export.report
    assert report.passed
    assert report.worst_abs_diff <= report.allowed_abs_diff
    assert report.label_agreement == report.batched_label_agreement == 1.0
    assert report.max_invariance_abs_diff < 1e-4
    assert export.task == {"t5": "text2text-generation", "bart": "summarization"}[name]
    assert {ENCODER_FILE, DECODER_FILE, "generation_config.json", "tokenizer.json"} <= {
        file.name for file in export.files
    }


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_the_table_of_tokens_is_there_once(seq2seq_exports: dict[str, Export], name: str) -> None:
    import onnx

    graph = onnx.load(seq2seq_exports[name].path / DECODER_FILE, load_external_data=False).graph
    vocabulary = int(graph.output[0].type.tensor_type.shape.dim[2].dim_value)
    wide = [one for one in graph.initializer if vocabulary in one.dims and len(one.dims) == 2]
    places = [
        entry.value
        for one in wide
        if min(one.dims) > 1
        for entry in one.external_data
        if entry.key == "location"
    ]
    assert places == [ENCODER_FILE]


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_torch_in_the_same_shape_answers_the_same(
    seq2seq_models: dict[str, Path], seq2seq_exports: dict[str, Export], name: str
) -> None:
    exported = open_encoder_decoder(seq2seq_exports[name].path, threads=1)
    loaded = load_encoder_decoder(read_source(seq2seq_models[name]), threads=1)
    assert (exported.layers, exported.heads, exported.head_size) == (
        loaded.layers, loaded.heads, loaded.head_size,
    )  # fmt: skip
    np.testing.assert_allclose(_steps(exported), _steps(loaded), atol=1e-4)


def _steps(graphs: EncoderDecoder) -> Any:
    source = graphs.encode([np.arange(4, 9), np.arange(4, 16)], 1)
    past, logits = graphs.empty_cache(2), np.zeros(0)
    for step in range(3):
        mask = np.ones((2, step + 1), dtype=np.int64)
        logits, past = graphs.decode(np.array([5 + step, 9]), mask, source, past)
    return logits


def test_an_export_from_elsewhere_is_tried(
    seq2seq_exports: dict[str, Export], tmp_path: Path
) -> None:
    received = tmp_path / seq2seq_exports["t5"].key
    shutil.copytree(seq2seq_exports["t5"].path, received)
    assert check_export(received).task == "text2text-generation"
    decoder = received / DECODER_FILE
    decoder.chmod(0o600)
    decoder.write_bytes(decoder.read_bytes().replace(b"encoder.onnx", b"encoder.json"))
    record = received / "export.json"
    record.chmod(0o600)
    document = json.loads(record.read_text("utf-8"))
    for file in document["files"]:
        if file["name"] == DECODER_FILE:
            from registry.export.store import hash_file

            file["sha256"] = hash_file(decoder)
    record.write_text(json.dumps(document), "utf-8")
    with pytest.raises(UnsafeContentError, match="from another file"):
        check_export(received)


@pytest.mark.parametrize(
    ("config", "task"),
    [
        ({"architectures": ["T5ForConditionalGeneration"]}, "text2text-generation"),
        ({"architectures": ["MT5ForConditionalGeneration"]}, "text2text-generation"),
        ({"architectures": ["BartForConditionalGeneration"]}, "text2text-generation"),
        ({"architectures": ["MBartForConditionalGeneration"]}, "translation"),
        ({"architectures": ["MarianMTModel"]}, "translation"),
        ({"architectures": ["PegasusForConditionalGeneration"]}, "summarization"),
        ({"architectures": ["WhisperForConditionalGeneration"]}, None),
        (
            {
                "architectures": ["BartForConditionalGeneration"],
                "task_specific_params": {"summarization": {}, "summarization_xsum": {}},
            },
            "summarization",
        ),
        (
            {
                "architectures": ["T5ForConditionalGeneration"],
                "task_specific_params": {"summarization": {}, "translation_en_to_de": {}},
            },
            "text2text-generation",
        ),
    ],
)
def test_the_task_of_a_configuration(config: dict[str, object], task: str | None) -> None:
    assert task_of(config) == task


def test_settings_come_from_the_task_then_the_model_then_the_pipeline() -> None:
    config = {
        "prefix": "p: ",
        "num_beams": 9,
        "task_specific_params": {
            "summarization": {"prefix": "summarize: ", "num_beams": 2, "max_length": 30},
            "translation_en_to_de": {},
        },
    }
    model = {"num_beams": 6, "length_penalty": 2.0, "top_k": None}
    assert generation_settings(config, model, "summarization") == {
        "prefix": "summarize: ", "num_beams": 2, "length_penalty": 2.0, "max_length": 30,
    }  # fmt: skip
    assert generation_settings(config, model, "translation") == {
        "prefix": "p: ", "num_beams": 6, "length_penalty": 2.0, "max_new_tokens": 256,
    }  # fmt: skip
    assert generation_settings({}, {}, "translation") == {"num_beams": 4, "max_new_tokens": 256}
    assert generation_settings(config, None, "translation")["num_beams"] == 9
    assert translation_tasks(config) == ("translation_en_to_de",)


def test_the_longest_answer() -> None:
    assert max_target_tokens({"max_position_embeddings": 1024}) == 1024
    assert max_target_tokens({"relative_attention_num_buckets": 32, "n_positions": 512}) == 4096
