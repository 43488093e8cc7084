"""Languages of a tokenizer that has a token for each, such as mBART's and NLLB's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import tokenizers

from serving.errors import InvalidInputError

_CODE = re.compile(r"[a-z]{2,3}_[A-Z][A-Za-z]{1,3}")
# `en_XX` as mBART has it, `eng_Latn` as NLLB.
_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Languages:
    """Tokens by language.

    Attributes:
        tokens: token of each language code; empty when the tokenizer has none.
        spoken_id: the token that the tokenizer puts around a text; None when it puts none.
    """

    tokens: Mapping[str, int]
    spoken_id: int | None

    @classmethod
    def of(cls, tokenizer: tokenizers.Tokenizer) -> Languages:
        """Return the languages of a tokenizer."""
        tokens = {
            str(token): int(number)
            for number, token in tokenizer.get_added_tokens_decoder().items()
            if token.special and _CODE.fullmatch(str(token))
        }
        around = [number for number in tokenizer.encode("").ids if number in tokens.values()]
        return cls(tokens, around[0] if around else None)

    def token(self, language: str | None) -> int:
        """Return the token of a language.

        Raises:
            InvalidInputError: there is none.
        """
        if language is not None and language in self.tokens:
            return self.tokens[language]
        if not self.tokens:
            raise InvalidInputError(
                "The model translates between no languages of choice.",
                hint="Leave out src_lang and tgt_lang.",
            )
        if language is None:
            raise InvalidInputError(
                "A translation needs both src_lang and tgt_lang.", hint=self._known()
            )
        raise InvalidInputError(
            f"{language[:32]!r} is no language of this model.", hint=self._known()
        )

    def spoken(self, encoding: tokenizers.Encoding, language: str | None) -> list[int]:
        """Return the tokens of a text, marked as being in this language.

        Raises:
            InvalidInputError: there is no token for the language.
        """
        ids: list[int] = list(encoding.ids)
        if language is None or self.spoken_id is None:
            return ids
        wanted = self.token(language)
        marks = encoding.special_tokens_mask
        return [
            wanted if mark and number == self.spoken_id else number
            for number, mark in zip(ids, marks, strict=True)
        ]

    def _known(self) -> str:
        codes = sorted(self.tokens)
        more = f" and {len(codes) - _SHOWN} more" if len(codes) > _SHOWN else ""
        return f"It knows {', '.join(codes[:_SHOWN])}{more}."
