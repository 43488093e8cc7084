"""Text generation against transformers' pipeline on the same directory, alone and in company."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers

from registry import Export
from serving.config import CoreLimits
from serving.generation.growing_text import GrowingText
from serving.generation.protocol import Piece
from serving.generation.tasks import open_generation
from serving.generation.warping import build_warpers
from serving.worker.generation import GenerationCore
from serving.worker.messages import Done, Outcome, PredictRequest, Problem
from tests.generation_models import CONTEXT, TinyDecoders
from tests.models import WORDS

# Mistral is Llama-shaped (rotary, grouped queries), and here with tied embeddings and a window.
ARCHITECTURES = ("GPT2LMHeadModel", "MistralForCausalLM")
GREEDY = {"do_sample": False, "max_new_tokens": 8}


@pytest.fixture(scope="session", params=ARCHITECTURES)
def decoder(request: pytest.FixtureRequest, tiny_decoders: TinyDecoders) -> tuple[Path, Export]:
    model, export = tiny_decoders.get(request.param)
    assert export.task == "text-generation"
    assert export.report.passed
    assert export.report.label_agreement == export.report.batched_label_agreement == 1
    return model, export


def prompts() -> list[str]:
    """Empty, one word, Unicode that tokens split, nearly as long as the model, many lengths."""
    rng = random.Random(7)
    words = [*WORDS[:40], "naïve", "東京", "😀", "café", "привет"]
    varied = [" ".join(rng.choices(words, k=rng.randint(1, 12))) for _ in range(190)]
    edges = ["1" * length for length in (1, 2, 15, 16, 17, 60, CONTEXT - 9, CONTEXT - 8)]
    return ["", "a", " ", "\n", "😀", "東京", "\u0301", *edges, *varied]


def answer(
    export: Export, items: Sequence[str], parameters: Mapping[str, Any], *, rows: int = 8
) -> list[Outcome]:
    """Answer all items at once."""
    return asyncio.run(_answer(export, [(items, parameters)], rows))[0]


async def _answer(
    export: Export, requests: Sequence[tuple[Sequence[str], Mapping[str, Any]]], rows: int
) -> list[list[Outcome]]:
    task, decoder = open_generation(
        export.path, "text-generation", engine="onnx", threads=1, max_jobs=rows
    )
    async with GenerationCore(task, decoder, CoreLimits(max_batch_rows=rows)) as core:
        asked = [PredictRequest(list(items), dict(given)) for items, given in requests]
        return list(await asyncio.gather(*map(core.predict, asked)))


def values(outcomes: Sequence[Outcome]) -> list[Any]:
    assert all(isinstance(one, Done) for one in outcomes), outcomes
    return [one.value for one in outcomes if isinstance(one, Done)]


def test_greedy_text_is_that_of_the_pipeline(decoder: tuple[Path, Export]) -> None:
    from transformers import pipeline

    model, export = decoder
    texts = prompts()
    found = values(answer(export, texts, GREEDY))
    reference = pipeline("text-generation", str(model), device="cpu")
    assert found == [reference(text, **GREEDY) for text in texts]
    assert values(answer(export, texts[:40], GREEDY, rows=1)) == found[:40]


def test_settings_that_change_greedy_text_do_what_transformers_does(
    decoder: tuple[Path, Export],
) -> None:
    from transformers import pipeline

    model, export = decoder
    settings = {**GREEDY, "repetition_penalty": 1.7, "no_repeat_ngram_size": 2, "min_new_tokens": 5}
    reference = pipeline("text-generation", str(model), device="cpu")
    texts = prompts()[:30]
    expected = [reference(text, **settings) for text in texts]
    assert values(answer(export, texts, settings)) == expected


def test_a_seed_gives_the_same_text_in_any_company(decoder: tuple[Path, Export]) -> None:
    _, export = decoder
    wish = {"seed": 11, "max_new_tokens": 12, "num_return_sequences": 2}
    company = [(prompts()[20:40], {"seed": 3, "max_new_tokens": 9}), (["the film"], wish)]
    alone = values(answer(export, ["the film"], wish))
    assert values(asyncio.run(_answer(export, company, 8))[1]) == alone
    first, second = alone[0]
    assert first != second
    other = values(answer(export, ["the film"], {**wish, "seed": 12}))
    assert other != alone


def test_a_text_ends_with_its_stop_string(decoder: tuple[Path, Export]) -> None:
    _, export = decoder
    whole = {**GREEDY, "return_full_text": False, "max_new_tokens": 20}
    (plain,) = values(answer(export, ["the film was"], whole))
    text = plain[0]["generated_text"]
    stop = text[4:7]
    (stopped,) = values(answer(export, ["the film was"], {**whole, "stop": [stop, "zzz"]}))
    assert stopped[0]["generated_text"] == text[: text.index(stop) + len(stop)]
    (detailed,) = values(answer(export, ["the film was"], {**whole, "stop": stop, "details": True}))
    assert detailed["details"]["finish_reason"] == "stop_sequence"
    told = "".join(one["text"] for one in detailed["details"]["tokens"])
    assert told == detailed["generated_text"]


def test_a_stream_says_the_text(decoder: tuple[Path, Export]) -> None:
    _, export = decoder

    async def stream(text: str) -> tuple[list[Piece], dict[str, Any]]:
        task, model = open_generation(
            export.path, "text-generation", engine="onnx", threads=1, max_jobs=4
        )
        told: list[Piece] = []
        async with GenerationCore(task, model, CoreLimits(max_batch_rows=4)) as core:
            wish = PredictRequest([text], {**GREEDY, "max_new_tokens": 30, "details": True})
            (outcome,) = await core.predict(wish, tell=told.extend)
        assert isinstance(outcome, Done)
        last = dict(outcome.value)
        return [*told, *(Piece(*one) for one in last.pop("last"))], last

    for text in ("", "the film", "😀 東京"):
        pieces, last = asyncio.run(stream(text))
        assert "".join(piece.text for piece in pieces) == last["generated_text"]
        assert last["details"]["generated_tokens"] == len(pieces)
        assert all(piece.logprob <= 0 for piece in pieces)
        (whole,) = values(
            answer(export, [text], {**GREEDY, "max_new_tokens": 30, "return_full_text": False})
        )
        assert whole[0]["generated_text"] == last["generated_text"]


@pytest.mark.parametrize(
    ("text", "parameters", "says"),
    [
        ("1" * CONTEXT, {}, "context"),
        ("a", {"temperature": 0}, "temperature"),
        ("a", {"stop": [""]}, "stop"),
        ("a", {"grammar": {"type": "json"}}, "grammar"),
        ("a", {"num_return_sequences": 2, "do_sample": False}, "same"),
        ("a", {"seed": -1}, "seed"),
        ("a", {"beams": 2}, "beams"),
    ],
)
def test_what_cannot_be_done_is_told(
    decoder: tuple[Path, Export], text: str, parameters: dict[str, Any], says: str
) -> None:
    (outcome,) = answer(decoder[1], [text], parameters)
    assert isinstance(outcome, Problem)
    assert says in outcome.message


def test_the_end_of_a_long_prompt_can_be_kept(decoder: tuple[Path, Export]) -> None:
    wish = {**GREEDY, "truncate": 10, "return_full_text": False}
    long, short = values(answer(decoder[1], ["1" * CONTEXT, "1" * 10], wish))
    assert long == short


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.7},
        {"temperature": 1.3, "top_k": 7},
        {"top_k": 0, "top_p": 0.8},
        {"top_k": 0, "typical_p": 0.6},
        {"top_k": 20, "top_p": 0.9, "min_p": 0.05, "typical_p": 0.9, "temperature": 0.9},
    ],
)
def test_draws_are_from_the_distribution_of_transformers(settings: dict[str, Any]) -> None:
    import torch
    from transformers.generation import logits_process as theirs

    rng = np.random.default_rng(2)
    scores = rng.normal(scale=3, size=(4, 200)).astype(np.float32)
    processors = theirs.LogitsProcessorList()
    if "temperature" in settings:
        processors.append(theirs.TemperatureLogitsWarper(settings["temperature"]))
    if settings.get("top_k", 50):
        processors.append(theirs.TopKLogitsWarper(settings.get("top_k", 50)))
    for name, warper in (
        ("top_p", theirs.TopPLogitsWarper),
        ("min_p", theirs.MinPLogitsWarper),
        ("typical_p", theirs.TypicalLogitsWarper),
    ):
        if name in settings:
            processors.append(warper(settings[name]))
    ids = torch.zeros(4, 1, dtype=torch.int64)
    expected = processors(ids, torch.from_numpy(scores.copy())).softmax(dim=-1).numpy()
    for warp in build_warpers(settings, least=1):
        warp(scores)
    found = torch.from_numpy(scores).softmax(dim=-1).numpy()
    assert np.abs(found - expected).max() <= 1e-5


def test_a_growing_text_never_tells_half_a_character(decoder: tuple[Path, Export]) -> None:
    tokenizer = tokenizers.Tokenizer.from_file(str(decoder[1].path / "tokenizer.json"))
    rng = np.random.default_rng(0)
    texts = ["naïve 東京 😀 e\u0301", "😀" * 9, "a b", *("é" * size for size in range(4))]
    drawn = [rng.integers(0, tokenizer.get_vocab_size(), 40).tolist() for _ in range(50)]
    for ids in [*(tokenizer.encode(text).ids for text in texts), *drawn]:
        growing = GrowingText(tokenizer)
        parts = [growing.add(token) for token in ids]
        assert "".join(parts) + growing.rest() == growing.whole()
        assert growing.whole() == tokenizer.decode(ids)
    for text in texts:
        growing = GrowingText(tokenizer)
        assert all("\ufffd" not in growing.add(token) for token in tokenizer.encode(text).ids)
