"""Inputs drawn over a model's vocabulary, batches of them, and outputs cut apart; numpy alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from registry.export.tasks import TaskSpec

Encoded: TypeAlias = Mapping[str, np.ndarray[Any, np.dtype[Any]]]
"""One input: input name -> array without the batch's axis."""

Output: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]

Answer: TypeAlias = Mapping[str, Output]
"""What a model answers to one input: output name -> array without the batch's axis."""

MAX_DRAWN_TOKENS = 2048
"""Longest drawn input: attention is quadratic, and a model of 32k positions has to end some day."""

_MEDIAN_TOKENS = 35
_SPREAD = 1.06  # log-normal with its 95th percentile near 200 tokens
_RANDOM_LENGTHS = 24
_LONG_TOKENS = 128  # longer ones are few: the comparison has to end in seconds
_BATCH_ROWS = 8
_BATCH_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class Frame:
    """What surrounds the tokens of one text, and what may stand inside.

    Attributes:
        prefix, suffix: special tokens, such as `[CLS]` and `[SEP]`.
        ordinary: ids of the vocabulary that are no special tokens.
        pad_id: what fills a row up.
        segments: values that token_type_ids may have; 1 when the model knows only one.
        pad_left: whether rows are filled up on the left.
    """

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    ordinary: np.ndarray[Any, np.dtype[np.int64]]
    pad_id: int
    segments: int
    pad_left: bool


def draw_lengths(max_tokens: int, fewest: int, rng: np.random.Generator) -> list[int]:
    """Return lengths in tokens: a grid of edges up to the maximum, and a text-like spread.

    Args:
        max_tokens: longest input of the model.
        fewest: tokens of an empty text.
        rng: seeded, so that two exports of a model are compared on the same inputs.
    """
    longest = max(min(max_tokens, MAX_DRAWN_TOKENS), fewest, 1)
    grid = {max(fewest, 1), fewest + 1, fewest + 2, longest}
    power = 4
    while power <= longest:
        grid |= {power, power + 1} if power < _LONG_TOKENS else {power}
        power *= 2
    drawn = np.exp(rng.normal(math.log(_MEDIAN_TOKENS), _SPREAD, _RANDOM_LENGTHS)).astype(int)
    lengths = [*grid, *(min(int(length), _LONG_TOKENS) for length in drawn)]
    return sorted(min(max(length, fewest, 1), longest) for length in lengths)


def draw_inputs(
    frame: Frame, lengths: Sequence[int], rng: np.random.Generator
) -> list[dict[str, np.ndarray[Any, np.dtype[np.int64]]]]:
    """Return one input of each length, of tokens drawn evenly from the whole vocabulary."""
    inputs = []
    for index, length in enumerate(lengths):
        inner = rng.choice(frame.ordinary, max(length - len(frame.prefix) - len(frame.suffix), 0))
        ids = np.array([*frame.prefix, *inner, *frame.suffix], dtype=np.int64)
        segments = np.zeros(len(ids), dtype=np.int64)
        if frame.segments > 1 and index % 3 == 2:
            segments[len(ids) // 2 :] = 1
        inputs.append(
            {
                "input_ids": ids,
                "attention_mask": np.ones(len(ids), dtype=np.int64),
                "token_type_ids": segments,
            }
        )
    return inputs


def plan_batches(lengths: Sequence[int]) -> list[list[int]]:
    """Return batches of indices: neighbours by length, each input once; then the extremes together.

    Padding of mixed lengths is what a batch may get wrong; the last batch has the most of it.
    """
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    batches: list[list[int]] = [[]]
    for index in order:
        rows = len(batches[-1]) + 1
        if batches[-1] and (rows > _BATCH_ROWS or rows * lengths[index] > _BATCH_TOKENS):
            batches.append([])
        batches[-1].append(index)
    extremes = {order[0], order[len(order) // 2], order[-1]}
    return [*batches, sorted(extremes, reverse=True)]


def pad(
    inputs: Sequence[Encoded], names: Sequence[str], *, pad_id: int, pad_left: bool
) -> dict[str, np.ndarray[Any, np.dtype[np.int64]]]:
    """Return arrays of shape (inputs, longest) for the named inputs."""
    longest = max(len(one["input_ids"]) for one in inputs)
    batch = {}
    for name in names:
        fill = pad_id if name == "input_ids" else 0
        array = np.full((len(inputs), longest), fill, dtype=np.int64)
        for row, one in enumerate(inputs):
            size = len(one[name])
            start = longest - size if pad_left else 0
            array[row, start : start + size] = one[name]
        batch[name] = array
    return batch


def cut(
    outputs: Mapping[str, Output],
    row: int,
    length: int,
    spec: TaskSpec,
    *,
    pad_left: bool,
) -> Answer:
    """Return the answer of one row of a batch, without padding, as far as it is compared.

    Args:
        outputs: of the batch.
        row: which of its rows.
        length: true tokens of that row.
        spec: the task.
        pad_left: on which side the row was filled up.
    """
    answer = {}
    for name in spec.outputs:
        output = outputs[name][row]
        if spec.per_token:
            start = len(output) - length if pad_left else 0
            kept = np.arange(length)
            if spec.compared_tokens is not None:
                kept = np.unique(np.linspace(0, length - 1, spec.compared_tokens).astype(int))
            output = output[start + kept]
        answer[name] = np.array(output, dtype=np.float32)
    return answer
