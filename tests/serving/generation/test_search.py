"""Searches and rules choose as `transformers.generate` does, given the same logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.generation.beams import BeamPolicy, BeamSearch
from serving.generation.rules import build_rules
from serving.generation.single import SingleSearch
from tests.seq2seq_models import tiny_bart, tiny_t5

SETTINGS: list[dict[str, Any]] = [
    {},
    {"num_beams": 2},
    {"num_beams": 4, "length_penalty": 2.0, "num_return_sequences": 3},
    {"num_beams": 4, "length_penalty": -1.0, "early_stopping": True},
    {"num_beams": 3, "early_stopping": "never", "length_penalty": 0.5},
    {"num_beams": 3, "early_stopping": "never", "length_penalty": 0.0, "min_length": 5},
    {"num_beams": 5, "no_repeat_ngram_size": 2, "num_return_sequences": 5},
    {"num_beams": 4, "early_stopping": True, "no_repeat_ngram_size": 3, "min_length": 6},
    {"no_repeat_ngram_size": 1},
    {"repetition_penalty": 1.7, "min_new_tokens": 4},
    {"num_beams": 3, "repetition_penalty": 1.3, "forced_bos_token_id": 7},
    {"num_beams": 2, "forced_eos_token_id": 2, "begin_suppress_tokens": [7, 9, 21]},
    {"bad_words_ids": [[18], [7, 7], [67, 67], [1]], "num_beams": 2},
    {"encoder_no_repeat_ngram_size": 2, "encoder_repetition_penalty": 1.4},
    {"exponential_decay_length_penalty": (3, 1.4), "num_beams": 3},
    {"suppress_tokens": [7, 68, 452], "num_beams": 2, "remove_invalid_values": True},
    {"eos_token_id": [1, 2, 68, 7, 452], "num_beams": 3},
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    from transformers import AutoModelForSeq2SeqLM

    folder = tmp_path_factory.mktemp("seq2seq")
    made: list[Path] = [tiny_t5(folder / "t5"), tiny_bart(folder / "bart")]
    return [AutoModelForSeq2SeqLM.from_pretrained(path).eval() for path in made]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_as_transformers(models: list[Any], settings: dict[str, Any]) -> None:
    import torch

    rng = np.random.default_rng(len(str(settings)))
    for model in models:
        for length in (1, 4, 11):
            ids = torch.from_numpy(rng.integers(4, model.config.vocab_size, (1, length)))
            with torch.inference_mode():
                expected = model.generate(
                    ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, **settings
                )
            ends = settings.get("eos_token_id", [model.config.eos_token_id])
            assert [list(one) for one in searched(model, ids, settings)] == [
                trimmed(one[1:], ends) for one in expected.tolist()
            ]


def trimmed(tokens: list[int], ends: list[int]) -> list[int]:
    """Leave out what fills up behind the end."""
    stop = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[: stop + 1]


def searched(model: Any, ids: Any, settings: dict[str, Any]) -> list[tuple[int, ...]]:
    """Search with logits that torch computes anew for every step."""
    import torch

    general = model.generation_config
    chosen = {"forced_eos_token_id": general.forced_eos_token_id, **settings}
    listed = settings.get("eos_token_id", general.eos_token_id)
    ends = tuple(listed) if isinstance(listed, list) else (listed,)
    start, most = general.decoder_start_token_id, 13
    rules = build_rules(chosen, ends=ends, max_length=most, source=ids[0].tolist())
    beams = settings.get("num_beams", 1)
    search: BeamSearch | SingleSearch
    if beams > 1:
        policy = BeamPolicy(
            beams=beams,
            returned=settings.get("num_return_sequences", 1),
            length_penalty=settings.get("length_penalty", 1.0),
            early_stopping=settings.get("early_stopping", False),
            ends=ends,
            max_length=most,
        )
        search = BeamSearch(start, policy, rules)
    else:
        search = SingleSearch(start, ends, most, rules)
    rows: list[list[int]] = [[start]]
    while True:
        with torch.inference_mode():
            given = ids.expand(len(rows), -1)
            logits = model(input_ids=given, decoder_input_ids=torch.tensor(rows)).logits[:, -1]
        move = search.advance(logits.numpy().copy())
        if move.complete:
            return search.sequences
        pairs = zip(move.parents, move.tokens, strict=True)
        rows = [[*rows[parent], token] for parent, token in pairs]
