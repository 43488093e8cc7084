"""A decoder that reads a source: sequences grow together, each with its own source and cache.

The caches of sequences that step together lie in one batch, filled up on the left; their sources
are filled up on the right. As long as the same sequences step, the graph's outputs are its next
inputs and nothing is copied; when they change, or when beams change their parents, rows are picked
from where they are. A batch is never changed: what failed can be repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from registry import (
    EncodedSource,
    EncoderDecoder,
    load_encoder_decoder,
    max_target_tokens,
    open_encoder_decoder,
    read_source,
)
from serving.errors import InferenceError, LoadError
from serving.generation.protocol import Prompt
from serving.tasks.directory import read_directory
from serving.tasks.protocol import Array

_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class _Batch:
    """Rows that stepped together.

    Attributes:
        origins: of each row, the number of the sequence whose prompt had its source.
        source: what the encoder made of the sources.
        mask: (rows, tokens), 1 where a row has a token.
        past: the cache by input name, (rows, heads, tokens, size of a head).
    """

    origins: tuple[int, ...]
    source: EncodedSource
    mask: Array
    past: dict[str, Array]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a sequence is: a row of a batch."""

    batch: _Batch
    row: int


class Seq2SeqDecoder:
    """Encoder and decoder of one model, and the caches of its sequences.

    See `serving.generation.protocol.Decoder`.

    Args:
        name: `onnx` or `torch`.
        graphs: run the model.
        pad_id: fills up rows; masked, so that it does not matter which.
        context_tokens: longest sequence.
        max_sequences: how many may be open at once.
        cache_tokens: how many tokens the cache holds, sources included.
    """

    def __init__(
        self,
        name: str,
        graphs: EncoderDecoder,
        *,
        pad_id: int,
        context_tokens: int,
        max_sequences: int,
        cache_tokens: int,
    ) -> None:
        self._name = name
        self._graphs: EncoderDecoder | None = graphs
        self._pad_id = pad_id
        self._context_tokens = context_tokens
        self._max_sequences = max_sequences
        self._cache_tokens = cache_tokens
        self._next = 0
        self._opened: dict[int, Prompt] = {}
        self._places: dict[int, _Place] = {}

    @property
    def name(self) -> str:
        """`onnx` or `torch`."""
        return self._name

    @property
    def context_tokens(self) -> int:
        """Longest sequence: prompt and growth, without the source."""
        return self._context_tokens

    @property
    def max_sequences(self) -> int:
        """How many sequences may be open at once."""
        return self._max_sequences

    @property
    def cache_tokens(self) -> int:
        """How many tokens the cache holds, over all sequences and their sources."""
        return self._cache_tokens

    def cost(self, prompt: Prompt, max_new_tokens: int) -> int:
        """Return the tokens of cache that a sequence may come to need, its source's included."""
        return len(prompt.source or ()) + len(prompt.ids) + max_new_tokens

    def open(self, prompt: Prompt) -> int:
        """Take a place for a sequence; nothing runs yet.

        Raises:
            InferenceError: no place is free, or the prompt has no source.
        """
        if not prompt.source or not prompt.ids:
            raise InferenceError("A prompt without a source cannot be answered.")
        number = self._take()
        self._opened[number] = prompt
        return number

    def prefill(self, sequences: Sequence[int]) -> list[Array | None]:
        """Encode the sources of opened sequences and run their prompts; equal lengths at once.

        Raises:
            InferenceError: the model failed.
        """
        groups: dict[tuple[int, int], list[int]] = {}
        for number in sequences:
            prompt = self._opened[number]
            size = len(prompt.source or ()), len(prompt.ids)
            groups.setdefault(size, []).append(number)
        logits: dict[int, Array] = {}
        for group in groups.values():
            logits |= zip(group, self._begin(group), strict=True)
        return [logits[number] for number in sequences]

    def step(self, sequences: Sequence[int], tokens: Sequence[int]) -> Array:
        """Add one token to each sequence; return the logits after it, (sequences, vocabulary).

        Raises:
            InferenceError: the model failed; the sequences are as they were.
        """
        batch = _picked([self._places[number] for number in sequences])
        return self._run(sequences, batch, np.array(tokens, dtype=np.int64))

    def fork(self, parents: Sequence[int]) -> list[int]:
        """Return one sequence for each of `parents`: the first time itself, then copies of it.

        Raises:
            InferenceError: no place is free for a copy.
        """
        forked: list[int] = []
        for parent in parents:
            if parent in forked:
                number = self._take()
                self._places[number] = self._places[parent]
            else:
                number = parent
            forked.append(number)
        return forked

    def close(self, sequence: int) -> None:
        """Give the place of a sequence back."""
        self._opened.pop(sequence, None)
        self._places.pop(sequence, None)

    def shutdown(self) -> None:
        """Free model and cache; calling it twice does no harm."""
        self._graphs = None
        self._opened.clear()
        self._places.clear()

    def _take(self) -> int:
        if len(self._opened) + len(self._places) >= self._max_sequences:
            raise InferenceError("No place is free for another sequence.")
        self._next += 1
        return self._next

    def _model(self) -> EncoderDecoder:
        if self._graphs is None:
            raise InferenceError("The engine is closed.")
        return self._graphs

    def _begin(self, sequences: Sequence[int]) -> Array:
        prompts = [self._opened[number] for number in sequences]
        graphs = self._model()
        sources = [np.array(prompt.source, dtype=np.int64) for prompt in prompts]
        # ONNX Runtime's exceptions share no base class of their own, nor do torch's.
        try:
            source = graphs.encode(sources, self._pad_id)
        except Exception as error:
            raise InferenceError("The encoder failed on this batch.") from error
        rows = len(prompts)
        empty = np.zeros((rows, 0), dtype=np.int64)
        batch = _Batch(tuple(sequences), source, empty, graphs.empty_cache(rows))
        ids = np.array([prompt.ids for prompt in prompts], dtype=np.int64)
        logits = np.empty((rows, 0), dtype=np.float32)
        for column in ids.T:
            logits = self._run(sequences, batch, column)
            batch = self._places[sequences[0]].batch
        for number in sequences:
            del self._opened[number]
        return logits

    def _run(self, sequences: Sequence[int], batch: _Batch, tokens: Array) -> Array:
        mask = np.concatenate([batch.mask, np.ones((len(tokens), 1), dtype=np.int64)], axis=1)
        graphs = self._model()
        try:
            logits, past = graphs.decode(tokens, mask, batch.source, batch.past)
        except Exception as error:
            raise InferenceError("The decoder failed on this batch.") from error
        after = _Batch(batch.origins, batch.source, mask, past)
        for row, number in enumerate(sequences):
            self._places[number] = _Place(after, row)
        return np.asarray(logits, dtype=np.float32)


def open_seq2seq(
    directory: Path,
    *,
    engine: str,
    task: str,
    pad_id: int,
    threads: int,
    max_sequences: int,
    cache_bytes: int,
) -> Seq2SeqDecoder:
    """Open the model in `directory`.

    Args:
        directory: an export of ours for `onnx`, a version as it was logged for `torch`.
        engine: `onnx` or `torch`.
        task: its task.
        pad_id: fills up rows.
        threads: cores that one run may use; for torch a setting of the whole process.
        max_sequences: how many may be open at once.
        cache_bytes: what keys and values of all of them may take, sources included.

    Raises:
        LoadError: the directory is no export, or there is no such engine.
        RegistryError: the model cannot be loaded.
    """
    if engine == "torch":
        source = read_source(directory, task)
        graphs, config = load_encoder_decoder(source, threads=threads), source.config
    elif engine == "onnx":
        model = read_directory(directory)
        if model.exported_task is None:
            raise LoadError(
                f"{directory} is no export.",
                hint="Make one with `registry export`; ONNX files of an artifact are not run.",
            )
        graphs, config = open_encoder_decoder(directory, threads=threads), model.config
    else:
        raise LoadError(
            f"A model with encoder and decoder cannot be run by {engine!r}.",
            hint="Engines are onnx and torch.",
        )
    token_bytes = 2 * graphs.layers * graphs.heads * graphs.head_size * _FLOAT_BYTES
    return Seq2SeqDecoder(
        engine,
        graphs,
        pad_id=pad_id,
        context_tokens=max_target_tokens(config),
        max_sequences=max_sequences,
        cache_tokens=cache_bytes // token_bytes,
    )


def _picked(places: Sequence[_Place]) -> _Batch:
    """Return the batch with the rows of these places, in their order."""
    first = places[0].batch
    rows = [place.row for place in places]
    if all(place.batch is first for place in places):
        if rows == [*range(len(first.mask))]:
            return first
        return _rows(first, rows)
    return _merged([_rows(place.batch, [place.row]) for place in places])


def _rows(batch: _Batch, rows: Sequence[int]) -> _Batch:
    """Return these rows of a batch, without what is padding in all of them."""
    origins = tuple(batch.origins[row] for row in rows)
    mask = batch.mask[rows]
    start = int(mask.argmax(axis=1).min())
    # Beams of one source change places all the time; what they attend to stays the same.
    same = origins == batch.origins
    source = batch.source if same else _sources(batch.source, rows)
    past = {name: part[rows][:, :, start:] for name, part in batch.past.items()}
    return _Batch(origins, source, mask[:, start:], past)


def _sources(source: EncodedSource, rows: Sequence[int]) -> EncodedSource:
    mask = source.mask[rows]
    longest = int(mask.sum(axis=1).max())
    cross = {name: part[rows][:, :, :longest] for name, part in source.cross.items()}
    return EncodedSource(mask[:, :longest], cross)


def _merged(batches: Sequence[_Batch]) -> _Batch:
    """Return the rows of all batches in one: caches filled up on the left, sources on the right."""
    tokens = max(batch.mask.shape[1] for batch in batches)
    length = max(batch.source.mask.shape[1] for batch in batches)
    past = {
        name: np.concatenate([_wide(batch.past[name], tokens, left=True) for batch in batches])
        for name in batches[0].past
    }
    cross = {
        name: np.concatenate(
            [_wide(batch.source.cross[name], length, left=False) for batch in batches]
        )
        for name in batches[0].source.cross
    }
    masks = [_wide(batch.mask, tokens, left=True, axis=1) for batch in batches]
    source_masks = [_wide(batch.source.mask, length, left=False, axis=1) for batch in batches]
    return _Batch(
        tuple(origin for batch in batches for origin in batch.origins),
        EncodedSource(np.concatenate(source_masks), cross),
        np.concatenate(masks),
        past,
    )


def _wide(array: Array, size: int, *, left: bool, axis: int = 2) -> Array:
    """Return the array with zeros up to `size` along an axis."""
    missing = size - array.shape[axis]
    if not missing:
        return array
    widths = [(0, 0)] * array.ndim
    widths[axis] = (missing, 0) if left else (0, missing)
    return np.pad(array, widths)
