"""Memory for what grows: what it bounds, and what is said when it is too small."""

from __future__ import annotations

import asyncio

import pytest

from registry import Export
from serving.config import CoreLimits
from serving.errors import LoadError
from serving.generation.tasks import open_generation
from serving.worker.generation import GenerationCore
from serving.worker.messages import Done, PredictRequest, Problem
from tests.generation_models import TinyDecoders

TOKEN_BYTES = 2 * 2 * 32 * 4  # layers, keys and values, width, float32


def test_a_cache_too_small_for_any_answer_is_told_at_loading(
    tiny_decoders: TinyDecoders, seq2seq_exports: dict[str, Export]
) -> None:
    _, export = tiny_decoders.get()
    for path, task in (
        (export.path, "text-generation"),
        (seq2seq_exports["t5"].path, "text2text-generation"),
    ):
        with pytest.raises(LoadError, match="few for a short answer") as told:
            open_generation(
                path, task, engine="onnx", threads=1, max_jobs=2, cache_bytes=4 * TOKEN_BYTES
            )
        assert "--cache-memory" in told.value.hint


def test_answers_that_share_a_small_cache_take_turns(tiny_decoders: TinyDecoders) -> None:
    _, export = tiny_decoders.get()

    async def answer() -> None:
        task, decoder = open_generation(
            export.path,
            "text-generation",
            engine="onnx",
            threads=1,
            max_jobs=8,
            cache_bytes=70 * TOKEN_BYTES,
        )
        assert decoder.cache_tokens == 70
        async with GenerationCore(task, decoder, CoreLimits(max_batch_rows=8)) as core:
            wish = {"max_new_tokens": 20, "do_sample": False}
            outcomes = await core.predict(PredictRequest(["a film"] * 6, wish))
            assert all(isinstance(one, Done) for one in outcomes)
            rows = [one.batch_rows for one in outcomes if isinstance(one, Done)]
            assert max(map(max, rows)) < 6
            (refused,) = await core.predict(PredictRequest(["a"], {"max_new_tokens": 80}))
            assert isinstance(refused, Problem)
            assert refused.error_type == "payload-too-large"
            assert "--cache-memory" in refused.hint

    asyncio.run(answer())
