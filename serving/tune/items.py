"""The inputs that candidates are measured on: samples of the model's own, else drawn by length.

Drawn texts follow a log-normal spread of lengths (median 35 tokens, 95th percentile 200, cut at
the model's maximum), taken at even quantiles: any two runs see the same lengths.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import Any

import msgspec
import tokenizers

from registry import IntegrityError, NotFoundError, UsageError
from serving.errors import ServingError
from serving.tasks import Task

SAMPLES_FILE = "samples.jsonl"

_MEDIAN_TOKENS = 35
_SPREAD = 1.06  # log-normal with its 95th percentile near 200 tokens
_MAX_DRAWN_TOKENS = 2048
_MAX_SAMPLES_BYTES = 16 * 2**20
_SEED = 22
_WORDS = 400
_TRIED_TOKENS = 6000
_HYPOTHESIS_TOKENS = 7
_LABELS = ("sport", "politics", "weather")


@dataclass(frozen=True, slots=True)
class Inputs:
    """What every candidate is asked.

    Attributes:
        items: in the form that the task's `preprocess` takes.
        parameters: to go with each of them.
        origin: where they came from, in words.
    """

    items: Sequence[Any]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    origin: str = ""


class _Vocabulary:
    """Words of one token each, and texts of about so many tokens made of them."""

    def __init__(self, directory: Path, rng: random.Random) -> None:
        self._rng = rng
        self._tokenizer = _load(directory)
        self.special = len(self._tokenizer.encode("").ids)
        self._words = self._find() or ["a"]

    def text(self, tokens: int) -> str:
        return " ".join(self._rng.choices(self._words, k=max(tokens, 1)))

    def _find(self) -> list[str]:
        size = self._tokenizer.get_vocab_size(with_added_tokens=False)
        words: dict[str, None] = {}
        for number in self._rng.sample(range(size), min(size, _TRIED_TOKENS)):
            word = self._tokenizer.decode([number]).strip()
            if word.isalpha() and len(self._tokenizer.encode(word, add_special_tokens=False)) == 1:
                words[word] = None
            if len(words) == _WORDS:
                break
        return list(words)


@dataclass(frozen=True, slots=True)
class _Form:
    """How a task's inputs are made of texts.

    Attributes:
        make: vocabulary, tokens -> an input with about so many tokens in its longest row.
        wrap: texts and the index of one -> an input; for samples that are plain texts.
        parameters: that show as much of an answer as can be compared.
    """

    make: Callable[[_Vocabulary, int], Any]
    wrap: Callable[[Sequence[str], int], Any]
    parameters: Mapping[str, Any] = field(default_factory=dict)


def _plain(parameters: Mapping[str, Any]) -> _Form:
    return _Form(lambda words, n: words.text(n), lambda texts, at: texts[at], parameters)


def _question(texts: Sequence[str], at: int) -> dict[str, str]:
    words = texts[at].split()
    return {"question": " ".join(words[:6]) or "what", "context": texts[at] or "nothing"}


def _masked(mask: str) -> Callable[[Sequence[str], int], str]:
    def wrap(texts: Sequence[str], at: int) -> str:
        if mask in texts[at]:
            return texts[at]
        words = texts[at].split() or [""]
        words[len(words) // 2] = mask
        return " ".join(words)

    return wrap


def _form(task: Task) -> _Form | None:
    if task.name == "fill-mask":
        wrap = _masked(str(getattr(task, "mask", "")))
        return _Form(lambda words, n: wrap([words.text(n)], 0), wrap)
    return _FORMS.get(task.name)


_FORMS: Mapping[str, _Form] = {
    "text-classification": _plain({"top_k": None}),
    "token-classification": _plain({"ignore_labels": []}),
    "feature-extraction": _plain({}),
    "zero-shot-classification": _Form(
        lambda words, n: words.text(n - _HYPOTHESIS_TOKENS),
        lambda texts, at: texts[at],
        {"candidate_labels": list(_LABELS)},
    ),
    "question-answering": _Form(
        lambda words, n: {
            "question": words.text(min(8, n // 2)),
            "context": words.text(n - min(8, n // 2)),
        },
        _question,
    ),
    "sentence-similarity": _Form(
        lambda words, n: {"source_sentence": words.text(n), "sentences": [words.text(n)]},
        lambda texts, at: {"source_sentence": texts[at], "sentences": [texts[at - 1]]},
    ),
    "text-ranking": _Form(
        lambda words, n: {
            "query": words.text(n // 4),
            "texts": [words.text(n - n // 4), words.text(max(1, (n - n // 4) // 2))],
        },
        lambda texts, at: {"query": texts[at], "texts": [texts[at - 1], texts[at - 2]]},
    ),
}

TUNABLE = tuple(sorted((*_FORMS, "fill-mask")))
"""Tasks whose inputs can be made here."""


def gather_inputs(
    task: Task, directory: Path, *, count: int, max_tokens: int, samples: Path | None
) -> Inputs:
    """Return the inputs to measure on: the samples, repeated up to `count`, or drawn ones.

    Args:
        task: opened.
        directory: has its `tokenizer.json`.
        count: how many.
        max_tokens: longest input of the model.
        samples: JSON lines; None draws.

    Raises:
        UsageError: the task cannot be tuned, or a line is no input of it.
        NotFoundError: there is no such file, or nothing in it.
        IntegrityError: the tokenizer cannot be loaded.
    """
    form = _form(task)
    if form is None:
        raise UsageError(
            f"The task {task.name!r} cannot be tuned yet.",
            hint=f"These can: {', '.join(TUNABLE)}.",
        )
    if samples is not None:
        return _from_samples(task, form, samples, count)
    vocabulary = _Vocabulary(directory, _seeded())
    lengths = draw_lengths(count, max_tokens)
    items = [form.make(vocabulary, max(1, length - vocabulary.special)) for length in lengths]
    words = f"drawn: log-normal lengths, median {_MEDIAN_TOKENS}, at most {max_tokens} tokens"
    return Inputs(items, form.parameters, words)


def draw_lengths(count: int, max_tokens: int) -> list[int]:
    """Return lengths in tokens at even quantiles of the spread, in a fixed shuffled order."""
    normal = NormalDist(math.log(_MEDIAN_TOKENS), _SPREAD)
    longest = min(max_tokens, _MAX_DRAWN_TOKENS)
    lengths = [
        max(3, min(longest, round(math.exp(normal.inv_cdf((index + 0.5) / count)))))
        for index in range(count)
    ]
    _seeded().shuffle(lengths)
    return lengths


def _seeded() -> random.Random:
    return random.Random(_SEED)  # noqa: S311 - the same inputs every time, no secrets


def _load(directory: Path) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    # The library raises plain Exception, and panics that are none.
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise IntegrityError(
            f"tokenizer.json cannot be loaded: {error}", hint="Log the tokenizer again."
        ) from error


def _from_samples(task: Task, form: _Form, path: Path, count: int) -> Inputs:
    lines = _lines(path)
    read = [_sample(path, number, line) for number, line in lines[:count]]
    texts = [one if isinstance(one, str) else str(one.get("text", "")) for one in read]
    items = [_item(task, form, one, texts, at) for at, one in enumerate(read)]
    for (number, _), item in zip(lines, items, strict=False):
        _check(task, form, path, number, item)
    repeated = [items[index % len(items)] for index in range(count)]
    return Inputs(repeated, form.parameters, f"{len(items)} samples of {path.name}")


def _lines(path: Path) -> list[tuple[int, bytes]]:
    if not path.is_file():
        raise NotFoundError(
            f"There is no file {path}.", hint="--samples names a file of JSON lines."
        )
    with path.open("rb") as file:
        lines = file.read(_MAX_SAMPLES_BYTES).splitlines()
    found = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise NotFoundError(f"{path} is empty.", hint='One line is {"text": "…"}.')
    return found


def _sample(path: Path, number: int, line: bytes) -> Any:
    try:
        sample = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _bad_line(path, number, str(error)) from error
    if not isinstance(sample, str | dict):
        raise _bad_line(path, number, "it is neither a text nor an object")
    return sample


def _item(task: Task, form: _Form, sample: Any, texts: Sequence[str], at: int) -> Any:
    """Return the input that a line stands for: its own form where it has one, else its text."""
    if isinstance(sample, dict):
        if "text" not in sample:
            return sample
        if task.name == "text-classification" and sample.get("text_pair") is not None:
            return {"text": sample["text"], "text_pair": sample["text_pair"]}
    return form.wrap(texts, at)


def _check(task: Task, form: _Form, path: Path, number: int, item: Any) -> None:
    try:
        task.preprocess(item, form.parameters)
    except ServingError as error:
        raise _bad_line(path, number, error.message) from error


def _bad_line(path: Path, number: int, why: str) -> UsageError:
    return UsageError(
        f"Line {number} of {path.name} is no input of this task: {why}",
        hint='One line is {"text": "…"}, or an input as the server takes it.',
    )
