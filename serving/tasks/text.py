"""Tokenising text as transformers does, with `tokenizers` alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tokenizers

from registry import max_tokens as longest_input
from serving.errors import InvalidInputError, LoadError
from serving.tasks.directory import ModelDirectory
from serving.tasks.protocol import Array, Outputs, Row

SAMPLE_TEXTS = ("a", "the first words to try", "one text of a middling length to try " * 8)


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """Text or a pair of texts -> a row; rows -> a padded batch.

    Equal to a transformers tokenizer called with `truncation=True`: the longer text of a pair is
    cut first, special tokens are counted, sides are the tokenizer's own.

    Attributes:
        tokenizer: encodes from several threads at once.
        max_tokens: longest row, special tokens included.
        pads: input name -> the value that fills a row up.
        pad_left: whether rows are filled up on the left.
        cut_left: whether texts that are too long lose their beginning.
    """

    tokenizer: tokenizers.Tokenizer
    max_tokens: int
    pads: Mapping[str, int]
    pad_left: bool
    cut_left: bool

    @classmethod
    def open(
        cls, model: ModelDirectory, *, truncate: bool = True, max_tokens: int | None = None
    ) -> TextEncoder:
        """Load `tokenizer.json` of the directory.

        Args:
            model: the directory.
            truncate: whether the tokenizer cuts what is too long; else see `windows`.
            max_tokens: what cuts shorter than the model's own maximum.

        Raises:
            LoadError: it is missing or broken.
        """
        path = model.path / "tokenizer.json"
        if not path.is_file():
            raise LoadError(
                f"{model.path} has no tokenizer.json.",
                hint="Serve its export, which always has one: `registry export`.",
            )
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(path))
        # The library raises plain Exception, and panics that are none.
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            raise LoadError(
                f"tokenizer.json cannot be loaded: {error}", hint="Log the tokenizer again."
            ) from error
        limit = model.exported_max_tokens or longest_input(
            model.config, model.tokenizer_config, max_tokens
        )
        sides = model.tokenizer_config
        tokenizer.no_padding()
        cut_left = _side(sides.get("truncation_side")) == "left"
        tokenizer.no_truncation()
        if truncate:
            tokenizer.enable_truncation(limit, direction="left" if cut_left else "right")
        return cls(
            tokenizer=tokenizer,
            max_tokens=limit,
            pads={
                "input_ids": _pad_id(model, tokenizer),
                "attention_mask": 0,
                "token_type_ids": 0,
            },
            pad_left=_side(sides.get("padding_side")) == "left",
            cut_left=cut_left,
        )

    def encode(self, text: str, pair: str | None = None) -> Row:
        """Tokenise a text or a pair; an empty second text counts as none.

        Raises:
            InvalidInputError: the text cannot be tokenised.
        """
        # transformers takes an empty second text for none at all, and trains that way.
        return self.row(self.encoding(text, pair or None))

    def encoding(self, text: str, pair: str | None = None) -> tokenizers.Encoding:
        """Return the tokens of a text or a pair, cut if the tokenizer cuts.

        Raises:
            InvalidInputError: the text cannot be tokenised.
        """
        try:
            return self.tokenizer.encode(text, pair)
        # A regular expression that explodes panics: that is no Exception.
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
                raise
            raise InvalidInputError(
                "The text cannot be tokenised.", hint="Send valid Unicode text."
            ) from error

    def row(
        self, encoding: tokenizers.Encoding, places: Array | None = None, facts: object = None
    ) -> Row:
        """Return the tokens at `places` (all by default) as a row."""
        arrays = {
            "input_ids": np.array(encoding.ids, dtype=np.int64),
            "attention_mask": np.array(encoding.attention_mask, dtype=np.int64),
            "token_type_ids": np.array(encoding.type_ids, dtype=np.int64),
        }
        truncated = bool(encoding.overflowing)
        length = len(encoding.ids)
        if places is not None and len(places) < length:
            arrays = {name: array[places] for name, array in arrays.items()}
            truncated, length = True, len(places)
        return Row(arrays, length=length, truncated=truncated, facts=facts)

    def collate(self, rows: Sequence[Row], input_names: Sequence[str]) -> dict[str, Array]:
        """Return arrays of shape (rows, longest row) for the inputs that the model has."""
        longest = max(row.length for row in rows)
        batch: dict[str, Array] = {}
        for name in input_names:
            array = np.full((len(rows), longest), self.pads[name], dtype=np.int64)
            for index, row in enumerate(rows):
                start = longest - row.length if self.pad_left else 0
                array[index, start : start + row.length] = row.arrays[name]
            batch[name] = array
        return batch

    def split_tokens(
        self, rows: Sequence[Row], outputs: Mapping[str, Array], names: Sequence[str]
    ) -> list[Outputs]:
        """Return the named outputs of each row without padding, for outputs with one per token."""
        longest = max(row.length for row in rows)
        parts: list[Outputs] = []
        for index, row in enumerate(rows):
            start = longest - row.length if self.pad_left else 0
            kept = slice(start, start + row.length)
            parts.append({name: outputs[name][index, kept] for name in names})
        return parts


def split_rows(
    rows: Sequence[Row], outputs: Mapping[str, Array], names: Sequence[str]
) -> list[Outputs]:
    """Return the named outputs of each row, for outputs that have one value per row."""
    return [{name: outputs[name][index] for name in names} for index in range(len(rows))]


def _side(value: object) -> str:
    return "left" if value == "left" else "right"


def special_token(model: ModelDirectory, kind: str) -> str | None:
    """Return the text of a special token, such as `mask_token`, if the tokenizer declares it."""
    declared: Any = model.tokenizer_config.get(kind)
    # Older tokenizers write a token as an object with its content.
    name = declared.get("content") if isinstance(declared, dict) else declared
    return name if isinstance(name, str) else None


def special_id(model: ModelDirectory, tokenizer: tokenizers.Tokenizer, kind: str) -> int | None:
    """Return the id of a special token, if the tokenizer declares it and has it."""
    name = special_token(model, kind)
    found = tokenizer.token_to_id(name) if name is not None else None
    return None if found is None else int(found)


def _pad_id(model: ModelDirectory, tokenizer: tokenizers.Tokenizer) -> int:
    found = special_id(model, tokenizer, "pad_token")
    if found is not None:
        return found
    configured = model.config.get("pad_token_id")
    return configured if isinstance(configured, int) else 0
