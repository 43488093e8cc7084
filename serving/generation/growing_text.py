"""A text that grows by tokens: what each of them adds, never half a character."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import tokenizers

_BROKEN = "\ufffd"
"""What decoding makes of bytes that are no character, or not one yet."""

_BYTE = re.compile(r"<0x[0-9A-F]{2}>\Z")
"""A token that is one byte, of vocabularies that spell unknown characters so."""


@dataclass(slots=True)
class GrowingText:
    """Tokens so far and the text that was told of them.

    Only the last tokens are decoded again: they, and the tokens before that show what a decoder
    does between two tokens. Tokens that are bytes wait for one that is none: if the bytes in a row
    are no text as a whole, a decoder takes none of them for a character.

    Args:
        tokenizer: decodes; special tokens are left out.
    """

    tokenizer: tokenizers.Tokenizer
    told: str = ""
    ids: list[int] = field(default_factory=list)
    _window: int = 0
    _read: int = 0
    _in_bytes: bool = False

    def add(self, token: int) -> str:
        """Add a token and return what the text has grown by."""
        self.ids.append(token)
        self._in_bytes = self._continues_bytes(token)
        if self._in_bytes:
            return ""
        before = self._decode(self.ids[self._window : self._read])
        now = self._decode(self.ids[self._window :])
        if len(now) <= len(before) or now.endswith(_BROKEN):
            return ""
        self._window, self._read = self._read, len(self.ids)
        grown = now[len(before) :]
        self.told += grown
        return grown

    def whole(self) -> str:
        """Return the text of all tokens."""
        return self._decode(self.ids)

    def rest(self) -> str:
        """Return what was held back; nothing can complete it any more."""
        whole = self.whole()
        held = whole[len(self.told) :] if whole.startswith(self.told) else ""
        self.told += held
        return held

    def _continues_bytes(self, token: int) -> bool:
        if _BYTE.match(self.tokenizer.id_to_token(token) or ""):
            return True
        # What is left out of the text, such as a special token, parts no bytes.
        return self._in_bytes and not self._decode([token])

    def _decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)) if ids else ""
