"""A text that grows by tokens that are bytes: what is told is never taken back."""

from __future__ import annotations

import pytest
import tokenizers
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import decoders, models

from serving.generation.growing_text import GrowingText

_NAMES = (
    *("<unk>", "<s>", "</s>"),
    *(f"<0x{byte:02X}>" for byte in range(256)),
    *("▁", "▁▁", "▁the", "▁film", "a", "é", "東", "\ufffd", "\n"),
)
_IDS = {name: number for number, name in enumerate(_NAMES)}
_SPECIAL = ["<s>", "</s>"]


def _bytes(*values: int) -> list[int]:
    return [_IDS[f"<0x{value:02X}>"] for value in values]


def byte_fallback(*, strips: bool) -> tokenizers.Tokenizer:
    """A tokenizer like Llama's (which strips the first space) or Gemma's."""
    model = models.BPE(vocab=_IDS, merges=[], byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.add_special_tokens(_SPECIAL)
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*parts, *([decoders.Strip(" ", 1, 0)] * strips)])
    return tokenizer


LLAMA, GEMMA = byte_fallback(strips=True), byte_fallback(strips=False)

# Bytes that are characters, parts of some, or nothing at all; and the tokens between them.
_PARTS = st.one_of(
    st.sampled_from(["A", "é", "東", "😀", "\n"]).map(lambda text: _bytes(*text.encode())),
    st.integers(0, 255).map(_bytes),
    st.sampled_from([0, 1, 2, *range(259, len(_NAMES))]).map(lambda number: [number]),
)


@given(st.lists(_PARTS, max_size=14), st.sampled_from([LLAMA, GEMMA]))
@example([_bytes(0x41), _bytes(0xFF)], LLAMA)
@example([_bytes(0x41), [1], _bytes(0xFF), [_IDS["▁the"]]], LLAMA)
@example([[_IDS["▁"]], [_IDS["▁"]], [_IDS["▁the"]]], LLAMA)
def test_pieces_make_the_text_whatever_the_bytes(
    parts: list[list[int]], tokenizer: tokenizers.Tokenizer
) -> None:
    ids = [number for part in parts for number in part]
    growing = GrowingText(tokenizer)
    told = "".join(growing.add(number) for number in ids)
    assert tokenizer.decode(ids).startswith(told)
    assert told + growing.rest() == tokenizer.decode(ids) == growing.whole() == growing.told


@pytest.mark.parametrize("tokenizer", [LLAMA, GEMMA])
def test_words_are_told_at_once_and_bytes_when_a_word_follows(
    tokenizer: tokenizers.Tokenizer,
) -> None:
    growing = GrowingText(tokenizer)
    assert growing.add(_IDS["a"]) == "a"
    assert growing.add(_IDS["▁film"]) == " film"
    assert [growing.add(number) for number in _bytes(*"東A".encode())] == [""] * 4
    assert growing.add(_IDS["▁the"]) == "東A the"
