"""Summaries and translations are those of transformers, alone and in company."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from registry import Export, load_encoder_decoder, open_encoder_decoder, read_source
from serving.errors import InvalidInputError, LoadError
from serving.generation.rewriting import Rewriting
from serving.tasks.directory import read_directory
from tests.seq2seq_models import tiny_mbart
from tests.serving.generation.rewriting import TEXTS, Reference, Rewriter

CASES = [
    ("t5", "summarization", "summarization", {"max_new_tokens": 12}, TEXTS),
    ("t5", "text2text-generation", "", {"num_beams": 1, "max_new_tokens": 12}, TEXTS[:80]),
    ("bart", "summarization", "summarization", {}, TEXTS),
    (
        "bart",
        "text2text-generation",
        "",
        {"max_new_tokens": 12, "num_return_sequences": 3, "early_stopping": "never"},
        TEXTS[:40],
    ),
    (
        "t5",
        "translation",
        "translation_en_to_de",
        {"src_lang": "en", "tgt_lang": "de"},
        TEXTS[:40],
    ),
    (
        "bart",
        "text2text-generation",
        "",
        {"max_length": 14, "num_beams": 1, "no_repeat_ngram_size": 2, "repetition_penalty": 1.3},
        TEXTS[:40],
    ),
]
KEYS = {
    "summarization": "summary_text",
    "translation": "translation_text",
    "text2text-generation": "generated_text",
}


@pytest.fixture(scope="module")
def references(seq2seq_models: dict[str, Path]) -> dict[str, Reference]:
    return {name: Reference(path) for name, path in seq2seq_models.items()}


def rewriter(export: Export, task: str) -> Rewriter:
    return Rewriter(export.path, task, open_encoder_decoder(export.path, threads=1))


@pytest.mark.parametrize(("name", "task", "key", "parameters", "texts"), CASES)
def test_as_transformers(
    seq2seq_exports: dict[str, Export],
    references: dict[str, Reference],
    name: str,
    task: str,
    key: str,
    parameters: dict[str, Any],
    texts: tuple[str, ...],
) -> None:
    known = {name: one for name, one in parameters.items() if not name.endswith("_lang")}
    expected = [
        [{KEYS[task]: made} for made in references[name].texts(text, key, known)] for text in texts
    ]
    ours = rewriter(seq2seq_exports[name], task)
    assert [ours.answers([text], parameters)[0] for text in texts] == expected
    together = [
        answer
        for start in range(0, len(texts), 24)
        for answer in ours.answers(texts[start : start + 24], parameters)
    ]
    assert together == expected
    assert len({str(answer) for answer in expected}) > len(texts) // 4


def test_an_answer_does_not_change_when_others_come_and_go(
    seq2seq_exports: dict[str, Export],
) -> None:
    ours = rewriter(seq2seq_exports["bart"], "text2text-generation")
    texts = [" ".join(TEXTS[8:20]), "a", TEXTS[30], "東京"]
    lengths = [20, 3, 9, 1]
    alone = []
    for text, length in zip(texts, lengths, strict=True):
        alone += ours.answers([text], {"max_new_tokens": length})
    jobs = [
        job
        for text, length in zip(texts, lengths, strict=True)
        for job in ours.task.prepare(text, {"max_new_tokens": length})
    ]
    ours.grow(jobs)
    assert [ours.task.answer([job]) for job in jobs] == alone


def test_a_seed_repeats_what_is_drawn(seq2seq_exports: dict[str, Export]) -> None:
    ours = rewriter(seq2seq_exports["t5"], "text2text-generation")
    for beams in (1, 3):
        wish = {"do_sample": True, "num_beams": beams, "max_new_tokens": 8, "seed": 7, "top_k": 0}
        wish |= {"num_return_sequences": 3, "temperature": 1.5}
        (first,), (second,) = (ours.answers(["the film"], wish) for _ in range(2))
        assert first == second
        assert len(first) == 3
        (other,) = ours.answers(["the film"], wish | {"seed": 8})
        assert other != first


def test_languages_have_their_tokens(tmp_path: Path) -> None:
    model = tiny_mbart(tmp_path)
    reference = Reference(model)
    tokenizer = reference.tokenizer
    ours = Rewriter(model, "translation", load_encoder_decoder(read_source(model), threads=1))
    for source, target in (("en_XX", "ro_RO"), ("de_DE", "en_XX")):
        parameters = {"src_lang": source, "tgt_lang": target, "max_new_tokens": 9}
        (answer,) = ours.answers(["the old house"], parameters)
        (job,) = ours.task.prepare("the old house", parameters)
        inner = tokenizer("the old house", add_special_tokens=False)["input_ids"]
        spoken = tokenizer.convert_tokens_to_ids(source)
        assert job.prompt.source == (spoken, *inner, tokenizer.eos_token_id)
        forced = {"forced_bos_token_id": tokenizer.convert_tokens_to_ids(target)}
        import torch

        found = reference.model.generate(
            torch.tensor([job.prompt.source]), num_beams=4, max_new_tokens=9, **forced
        )
        text = tokenizer.decode(found[0], skip_special_tokens=True)
        assert answer == [{"translation_text": text}]
    for wrong in (
        {"src_lang": "en_XX", "tgt_lang": "fr_XX"},
        {"src_lang": "xx", "tgt_lang": "en_XX"},
        {"src_lang": "en_XX"},
    ):
        with pytest.raises(InvalidInputError, match="lang"):
            ours.task.prepare("a", wrong)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"num_beams": 0}, "num_beams"),
        ({"num_beams": 17}, "num_beams"),
        ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences"),
        ({"num_beams": 1, "num_return_sequences": 2}, "num_return_sequences"),
        ({"max_new_tokens": 64}, "at most 63 tokens"),
        ({"max_length": 1}, "max_length"),
        ({"length_penalty": float("nan")}, "length_penalty"),
        ({"temperature": 0}, "temperature"),
        ({"early_stopping": "soon"}, "early_stopping"),
        ({"generate_parameters": {"nonsense": 1}}, "nonsense"),
        ({"generate_parameters": [1]}, "generate_parameters"),
        ({"truncation": "only_second"}, "truncation"),
        ({"src_lang": "en"}, "src_lang"),
    ],
)
def test_parameters_that_cannot_be(
    seq2seq_exports: dict[str, Export], parameters: dict[str, Any], message: str
) -> None:
    task = Rewriting.opener("summarization")(read_directory(seq2seq_exports["bart"].path))
    with pytest.raises(InvalidInputError, match=message):
        task.prepare("a text", parameters)


def test_inputs_that_cannot_be(seq2seq_exports: dict[str, Export]) -> None:
    task = Rewriting.opener("summarization")(read_directory(seq2seq_exports["bart"].path))
    for item in (3, None, {"text": "a"}):
        with pytest.raises(InvalidInputError):
            task.prepare(item, {})
    with pytest.raises(InvalidInputError, match="longer than"):
        task.prepare("the " * 300, {"truncation": "do_not_truncate"})
    assert task.prepare("the " * 300, {"generate_parameters": {"num_beams": 2}})[0].width == 2


def test_translations_between_other_languages(seq2seq_exports: dict[str, Export]) -> None:
    task = Rewriting.opener("translation")(read_directory(seq2seq_exports["t5"].path))
    with pytest.raises(InvalidInputError, match="these languages") as caught:
        task.prepare("a", {"src_lang": "en", "tgt_lang": "fr"})
    assert "en to ro" in str(caught.value.hint)
    bart = Rewriting.opener("translation")(read_directory(seq2seq_exports["bart"].path))
    with pytest.raises(InvalidInputError, match="no languages of choice"):
        bart.prepare("a", {"src_lang": "en", "tgt_lang": "fr"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_beam_groups", 2),
        ("num_beams", "many"),
        ("eos_token_id", [-1]),
        ("length_penalty", None),
        ("bad_words_ids", [3]),
        ("early_stopping", "soon"),
        ("decoder_start_token_id", None),
    ],
)
def test_settings_of_a_model_that_cannot_be(
    seq2seq_exports: dict[str, Export], tmp_path: Path, name: str, value: object
) -> None:
    directory = tmp_path / "export"
    shutil.copytree(seq2seq_exports["bart"].path, directory)
    path = directory / "generation_config.json"
    path.chmod(0o600)
    settings = json.loads(path.read_text("utf-8")) | {name: value}
    if name == "decoder_start_token_id":
        settings["bos_token_id"] = None
    path.write_text(json.dumps(settings), "utf-8")
    if name == "length_penalty":
        assert Rewriting.opener("text2text-generation")(read_directory(directory))
        return
    with pytest.raises(LoadError, match="begins" if value is None else name):
        Rewriting.opener("text2text-generation")(read_directory(directory))
