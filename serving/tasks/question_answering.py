"""Extractive question answering as transformers' pipeline did it until version 4."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tokenizers

from serving.errors import InvalidInputError
from serving.tasks.directory import ModelDirectory
from serving.tasks.parameters import check_known, truth, whole_number
from serving.tasks.protocol import Array, Outputs, Row, Samples
from serving.tasks.scores import finite
from serving.tasks.spans import Span, best_spans, probabilities
from serving.tasks.text import SAMPLE_TEXTS, TextEncoder, special_id
from serving.tasks.windows import windows

_PARAMETERS = (
    *("align_to_words", "doc_stride", "handle_impossible_answer", "max_answer_len"),
    *("max_question_len", "max_seq_len", "top_k"),
)
_HINT = 'Send {"question": "…", "context": "…"}.'
_DEFAULT_TOKENS = 384
_DEFAULT_STRIDE = 128
_DEFAULT_ANSWER_TOKENS = 15


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a row's answer needs of its texts.

    Attributes:
        context: the whole text.
        encoding: tokens of question and context.
        places: those that are in the row.
        allowed: which tokens of the row may be in an answer.
    """

    context: str
    encoding: tokenizers.Encoding
    places: Array
    allowed: Array


@dataclass(frozen=True, slots=True)
class QuestionAnswering:
    """The span of a context that answers a question; a long context makes several rows.

    Parameters of a request: `top_k` (default 1), `doc_stride` (tokens that neighbouring parts
    share), `max_seq_len` (tokens of a part), `max_answer_len` (tokens; default 15),
    `handle_impossible_answer` (default false; true lets an empty answer win), `align_to_words`
    (default true). `max_question_len` is taken and, as with transformers' fast tokenizers, without
    effect.

    Attributes:
        encoder: tokenises; does not cut.
        cls_id: the token whose score stands for "no answer", if the tokenizer has one.
    """

    encoder: TextEncoder
    cls_id: int | None

    @classmethod
    def open(cls, model: ModelDirectory) -> QuestionAnswering:
        """Open the task for a model directory.

        Raises:
            LoadError: the tokenizer cannot be used.
        """
        encoder = TextEncoder.open(model, truncate=False)
        return cls(encoder, special_id(model, encoder.tokenizer, "cls_token"))

    @property
    def name(self) -> str:
        """`question-answering`."""
        return "question-answering"

    @property
    def samples(self) -> Samples:
        """A question about texts of three lengths."""
        return Samples([{"question": "what?", "context": text} for text in SAMPLE_TEXTS])

    def preprocess(self, item: object, parameters: Mapping[str, object]) -> list[Row]:
        """Tokenise question and context.

        Raises:
            InvalidInputError: the item is of another form, the question leaves no room for the
                context, or a parameter cannot be used.
        """
        self._check(parameters)
        question, context = _texts(item)
        encoder = self.encoder
        limit = min(
            whole_number(parameters, "max_seq_len", _DEFAULT_TOKENS) or 0, encoder.max_tokens
        )
        stride = whole_number(parameters, "doc_stride", min(limit // 2, _DEFAULT_STRIDE), least=0)
        # A tokenizer that pads on the left puts the context first.
        sequence = 0 if encoder.pad_left else 1
        pair = (context, question) if encoder.pad_left else (question, context)
        encoding = encoder.encoding(*pair)
        parts = windows(encoding, max_tokens=limit, stride=stride or 0, sequence=sequence)
        ids = np.array(encoding.ids)
        owned = np.array([owner == sequence for owner in encoding.sequence_ids])
        if self.cls_id is not None:
            owned |= ids == self.cls_id
        return [
            encoder.row(encoding, places, _Facts(context, encoding, places, owned[places]))
            for places in parts
        ]

    def collate(self, rows: Sequence[Row], input_names: Sequence[str]) -> dict[str, Array]:
        """Pad the rows to the longest."""
        return self.encoder.collate(rows, input_names)

    def split(self, rows: Sequence[Row], outputs: Mapping[str, Array]) -> list[Outputs]:
        """Return the logits of each row's own tokens."""
        return self.encoder.split_tokens(rows, outputs, ("start_logits", "end_logits"))

    def postprocess(
        self, rows: Sequence[Row], outputs: Sequence[Outputs], parameters: Mapping[str, object]
    ) -> dict[str, Any] | list[dict[str, Any]]:
        """Return `{"score", "start", "end", "answer"}`, or a list where there are several.

        Raises:
            InvalidInputError: a parameter cannot be used.
            NonFiniteOutputError: a logit is NaN or infinite.
        """
        top_k = whole_number(parameters, "top_k", 1) or 1
        longest = whole_number(parameters, "max_answer_len", _DEFAULT_ANSWER_TOKENS) or 1
        align = truth(parameters, "align_to_words", True)
        # Spans that fall together once they are widened to words need a reserve.
        count = top_k * 2 + 10 if align else top_k
        found: dict[str, dict[str, Any]] = {}
        least = 1_000_000.0
        for row, output in zip(rows, outputs, strict=True):
            allowed = row.facts.allowed
            start = probabilities(finite(output["start_logits"]), allowed)
            end = probabilities(finite(output["end_logits"]), allowed)
            least = min(least, float(start[0] * end[0]))
            start[0] = end[0] = 0.0
            for span in best_spans(start, end, allowed, count, longest):
                _add(found, row.facts, span, align=align)
        answers = list(found.values())
        if truth(parameters, "handle_impossible_answer", False):
            answers.append({"score": least, "start": 0, "end": 0, "answer": ""})
        best = sorted(answers, key=lambda answer: -answer["score"])[:top_k]
        return best[0] if len(best) == 1 else best

    def _check(self, parameters: Mapping[str, object]) -> None:
        check_known(parameters, _PARAMETERS)
        for name in ("top_k", "max_answer_len", "max_question_len"):
            whole_number(parameters, name, None)
        for name in ("align_to_words", "handle_impossible_answer"):
            truth(parameters, name, True)


def _texts(item: object) -> tuple[str, str]:
    if not isinstance(item, Mapping) or set(item) != {"question", "context"}:
        raise InvalidInputError("An input is no question with a context.", hint=_HINT)
    question, context = item["question"], item["context"]
    if not isinstance(question, str) or not isinstance(context, str):
        raise InvalidInputError("Question or context is no text.", hint=_HINT)
    if not question or not context:
        raise InvalidInputError("Question or context is empty.", hint=_HINT)
    return question, context


def _add(found: dict[str, dict[str, Any]], facts: _Facts, span: Span, *, align: bool) -> None:
    """Add a span's answer; one that is there already gets the score too."""
    start, end = _characters(facts, span, align=align)
    answer = facts.context[start:end]
    same = found.get(answer.lower())
    if same is not None:
        same["score"] += span.score
    else:
        found[answer.lower()] = {
            "score": span.score,
            "start": start,
            "end": end,
            "answer": answer,
        }


def _characters(facts: _Facts, span: Span, *, align: bool) -> tuple[int, int]:
    """Return start and end of a span in the context, widened to words if that is wanted."""
    offsets = facts.encoding.offsets
    first, last = facts.places[span.first], facts.places[span.last]
    if align:
        begun, ended = _word(facts, first), _word(facts, last)
        if begun and ended:
            return offsets[begun[0]][0], offsets[ended[-1]][1]
    return offsets[first][0], offsets[last][1]


def _word(facts: _Facts, place: int) -> list[int]:
    """Return the places in the row of the tokens of the word that the token is part of."""
    words, owners = facts.encoding.word_ids, facts.encoding.sequence_ids
    word, owner = words[place], owners[place]
    if word is None:
        return []
    return [
        other for other in facts.places.tolist() if words[other] == word and owners[other] == owner
    ]
