"""A text that is too long, as overlapping parts that fit; equal to the tokenizer's own truncation.

The tokenizer itself could cut, but its settings are one for all threads, and a request may ask for
a stride of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tokenizers

from serving.errors import InvalidInputError
from serving.tasks.protocol import Array


def windows(
    encoding: tokenizers.Encoding,
    *,
    max_tokens: int,
    stride: int = 0,
    sequence: int = 0,
    cut_left: bool = False,
) -> list[Array]:
    """Return the places of the tokens of each part, in order.

    Args:
        encoding: of the whole text, or the whole pair, special tokens included.
        max_tokens: of a part, special tokens and the other text of a pair included.
        stride: how many tokens two neighbours share.
        sequence: which text of a pair is cut; the other is in every part.
        cut_left: whether the parts are counted from the end.

    Raises:
        InvalidInputError: there is no room for any of the text, or not more than the stride.
    """
    everything = np.arange(len(encoding.ids))
    if len(everything) <= max_tokens:
        return [everything]
    owners = encoding.sequence_ids
    inner = np.array([place for place in everything if owners[place] == sequence], dtype=np.int64)
    room = max_tokens - (len(everything) - len(inner))
    if room <= 0 or not len(inner):
        raise InvalidInputError(
            f"The text that stays whole leaves no room within {max_tokens} tokens.",
            hint="Shorten the question or the label.",
        )
    if stride >= room:
        raise InvalidInputError(
            f"The stride of {stride} tokens is not below the {room} that fit into one part.",
            hint="Ask for a smaller stride.",
        )
    parts = _ranges(len(inner), room, room - stride, from_end=cut_left)
    before, after = everything[: inner[0]], everything[inner[-1] + 1 :]
    return [np.concatenate([before, inner[start:stop], after]) for start, stop in parts]


def _ranges(total: int, size: int, step: int, *, from_end: bool) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of parts of `size`, a `step` apart, until all of `total` is covered."""
    covered = 0
    while True:
        stop = min(covered + size, total)
        yield (total - stop, total - covered) if from_end else (covered, stop)
        if stop == total:
            return
        covered += step
