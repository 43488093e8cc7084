"""The tokens of frames -> text, as transformers' `Wav2Vec2CTCTokenizer` decodes them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from serving.errors import LoadError
from serving.tasks.directory import ModelDirectory
from serving.tasks.text import special_token

_TOKENIZER = "Wav2Vec2CTCTokenizer"
_MAX_VOCABULARY_BYTES = 64 * 2**20
_TIDY = (
    *((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't")),
    *((" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re")),
)


@dataclass(frozen=True, slots=True)
class Piece:
    """A character or a word: its text and the frames from `start` up to `stop`."""

    text: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class CtcDecoder:
    """Best tokens per frame -> text: repeats are one, blanks are none.

    Attributes:
        tokens: id -> token.
        blank: the token that stands for nothing, the padding token.
        unknown: stands for ids that are no token.
        delimiter: the token between words; None if there is none.
        space: what it becomes in a text.
        lowercase: whether texts are made lower case.
        tidy: whether blanks before punctuation are taken out.
    """

    tokens: Mapping[int, str]
    blank: str
    unknown: str
    delimiter: str | None
    space: str
    lowercase: bool
    tidy: bool

    @classmethod
    def open(cls, model: ModelDirectory) -> CtcDecoder:
        """Read the vocabulary of a model directory.

        Raises:
            LoadError: it is missing, broken, or of a tokenizer of another kind.
        """
        settings = model.tokenizer_config
        kind = settings.get("tokenizer_class") or _TOKENIZER
        if kind != _TOKENIZER:
            raise LoadError(
                f"The model's tokens are read by {kind}, which is not known here.",
                hint=f"{_TOKENIZER} is.",
            )
        vocabulary = _read(model.path / "vocab.json")
        language = settings.get("target_lang")
        if isinstance(language, str):
            vocabulary = vocabulary.get(language, {})
        tokens = _added_tokens(model)
        try:
            tokens |= {int(number): str(token) for token, number in vocabulary.items()}
        except (AttributeError, TypeError, ValueError) as error:
            raise LoadError(
                "vocab.json is no map of tokens to numbers.", hint="Log the tokenizer again."
            ) from error
        delimiter = settings.get("word_delimiter_token", "|")
        if isinstance(delimiter, dict):
            delimiter = delimiter.get("content")
        return cls(
            tokens=tokens,
            blank=special_token(model, "pad_token") or "<pad>",
            unknown=special_token(model, "unk_token") or "<unk>",
            delimiter=delimiter,
            space=str(settings.get("replace_word_delimiter_char", " ")),
            lowercase=settings.get("do_lower_case") is True,
            tidy=settings.get("clean_up_tokenization_spaces") is True,
        )

    def characters(self, ids: Sequence[int]) -> list[Piece]:
        """Return what the frames spell, with the frames of each character."""
        pieces, start = [], 0
        names = (self.tokens.get(number, self.unknown) for number in ids)
        for token, group in itertools.groupby(names):
            stop = start + sum(1 for _ in group)
            if token != self.blank:
                pieces.append(Piece(self.space if token == self.delimiter else token, start, stop))
            start = stop
        return pieces

    def text(self, pieces: Sequence[Piece]) -> str:
        """Return characters as a text."""
        text = "".join(piece.text for piece in pieces).strip()
        if self.lowercase:
            text = text.lower()
        for untidy, better in _TIDY if self.tidy else ():
            text = text.replace(untidy, better)
        return text

    def words(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Return characters joined to words."""
        groups = itertools.groupby(pieces, lambda piece: piece.text == self.space)
        spelled = [list(group) for spaces, group in groups if not spaces]
        return [
            Piece("".join(piece.text for piece in word), word[0].start, word[-1].stop)
            for word in spelled
        ]


def _added_tokens(model: ModelDirectory) -> dict[int, str]:
    """Return tokens beside the vocabulary, as the tokenizer's settings number them."""
    added = model.tokenizer_config.get("added_tokens_decoder")
    if not isinstance(added, Mapping):
        return {}
    return {
        int(number): str(token["content"])
        for number, token in added.items()
        if str(number).isdigit() and isinstance(token, Mapping) and "content" in token
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_VOCABULARY_BYTES:
            raise LoadError(f"{path.name} is larger than {_MAX_VOCABULARY_BYTES} bytes.")
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LoadError(f"{path.name} cannot be read: {error}", hint="Pull it again.") from error
