"""Token classification (named entities, parts of speech) as transformers' pipeline does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tokenizers

from serving.errors import InvalidInputError
from serving.tasks.directory import ModelDirectory
from serving.tasks.entities import STRATEGIES, Token, aggregate, without_overlaps
from serving.tasks.parameters import check_known, choice, whole_number
from serving.tasks.protocol import Array, Outputs, Row, Samples
from serving.tasks.scores import finite_logits, label_names, softmax
from serving.tasks.text import SAMPLE_TEXTS, TextEncoder, special_id
from serving.tasks.windows import windows

_PARAMETERS = ("aggregation_strategy", "ignore_labels", "stride")


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a row's answer needs of its text.

    Attributes:
        text: the whole item.
        encoding: its tokens.
        places: those that are in the row.
    """

    text: str
    encoding: tokenizers.Encoding
    places: Array


@dataclass(frozen=True, slots=True)
class TokenClassification:
    """Labels with scores and character offsets for the tokens or words of a text.

    Parameters of a request: `aggregation_strategy` (`none`, `simple`, `first`, `average`, `max`;
    default `none`), `ignore_labels` (default `["O"]`) and `stride` (tokens that neighbouring parts
    of a long text share; without it a long text is cut; not with `none`).

    Attributes:
        encoder: tokenises; does not cut.
        labels: names by output.
        unknown_id: the token for what is not in the vocabulary, if there is one.
    """

    encoder: TextEncoder
    labels: tuple[str, ...]
    unknown_id: int | None

    @classmethod
    def open(cls, model: ModelDirectory) -> TokenClassification:
        """Open the task for a model directory.

        Raises:
            LoadError: the tokenizer or the label names cannot be used.
        """
        encoder = TextEncoder.open(model, truncate=False)
        unknown_id = special_id(model, encoder.tokenizer, "unk_token")
        return cls(encoder, label_names(model.config), unknown_id)

    @property
    def name(self) -> str:
        """`token-classification`."""
        return "token-classification"

    @property
    def samples(self) -> Samples:
        """Texts of three lengths."""
        return Samples(SAMPLE_TEXTS)

    def preprocess(self, item: object, parameters: Mapping[str, object]) -> list[Row]:
        """Tokenise a text; with a stride a long one makes several rows.

        Raises:
            InvalidInputError: the item is no text, or a parameter cannot be used.
        """
        check_known(parameters, _PARAMETERS)
        strategy = choice(parameters, "aggregation_strategy", "none", STRATEGIES)
        _ignored(parameters)
        stride = whole_number(parameters, "stride", None, least=0)
        if stride is not None and strategy == "none":
            raise InvalidInputError(
                "stride needs an aggregation_strategy other than none.", hint='Send "simple".'
            )
        if not isinstance(item, str):
            raise InvalidInputError("An input is no text.")
        encoding = self.encoder.encoding(item)
        parts = windows(
            encoding,
            max_tokens=self.encoder.max_tokens,
            stride=stride or 0,
            cut_left=self.encoder.cut_left,
        )
        kept = parts[:1] if stride is None else parts
        return [
            self.encoder.row(encoding, places, _Facts(item, encoding, places)) for places in kept
        ]

    def collate(self, rows: Sequence[Row], input_names: Sequence[str]) -> dict[str, Array]:
        """Pad the rows to the longest."""
        return self.encoder.collate(rows, input_names)

    def split(self, rows: Sequence[Row], outputs: Mapping[str, Array]) -> list[Outputs]:
        """Return the logits of each row's own tokens."""
        return self.encoder.split_tokens(rows, outputs, ("logits",))

    def postprocess(
        self, rows: Sequence[Row], outputs: Sequence[Outputs], parameters: Mapping[str, object]
    ) -> list[dict[str, Any]]:
        """Return entities in the order of the text.

        Raises:
            InvalidInputError: a parameter cannot be used.
            NonFiniteOutputError: a logit is NaN or infinite.
        """
        strategy = choice(parameters, "aggregation_strategy", "none", STRATEGIES)
        ignored = _ignored(parameters)
        found: list[dict[str, Any]] = []
        for row, output in zip(rows, outputs, strict=True):
            scores = softmax(finite_logits(output["logits"], len(self.labels)))
            tokens = self._tokens(row.facts, scores)
            entities = aggregate(tokens, strategy, self.labels, self._join)
            key = "entity" if strategy == "none" else "entity_group"
            found += [entity for entity in entities if entity[key] not in ignored]
        return without_overlaps(found) if len(rows) > 1 else found

    def _tokens(self, facts: _Facts, scores: Array) -> list[Token]:
        """Return the tokens of a row that are no special tokens."""
        ids, names = facts.encoding.ids, facts.encoding.tokens
        offsets, special = facts.encoding.offsets, facts.encoding.special_tokens_mask
        # A tokenizer with a mark for what continues a word knows words; of others it is guessed.
        marks = bool(getattr(self.encoder.tokenizer.model, "continuing_subword_prefix", None))
        tokens = []
        for index, place in enumerate(facts.places.tolist()):
            if special[place]:
                continue
            start, end = offsets[place]
            word, original = names[place], facts.text[start:end]
            if ids[place] == self.unknown_id:
                word, continues = original, False
            elif marks:
                continues = len(word) != len(original)
            else:
                continues = start > 0 and " " not in facts.text[start - 1 : start + 1]
            tokens.append(Token(word, scores[index], start, end, index, continues))
        return tokens

    def _join(self, words: Sequence[str]) -> str:
        decoder = self.encoder.tokenizer.decoder
        return decoder.decode(list(words)) if decoder is not None else " ".join(words)


def _ignored(parameters: Mapping[str, object]) -> frozenset[str]:
    wanted = parameters.get("ignore_labels")
    if wanted is None:
        return frozenset({"O"})
    if not isinstance(wanted, list) or not all(isinstance(label, str) for label in wanted):
        raise InvalidInputError("ignore_labels is not a list of labels.")
    return frozenset(wanted)
