"""A decoder alone: sequences in rows of one cache, which every run writes in place.

Sequences that step lie in neighbouring rows: when one leaves, the last takes its row at the next
step. A prompt is read in parts, so that the steps of others wait for one part at most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from registry import CachedSession, open_cached_session
from serving.errors import InferenceError, LoadError
from serving.generation.protocol import Prompt
from serving.tasks.directory import read_directory
from serving.tasks.protocol import Array

PREFILL_TOKENS = 256
"""Tokens of prompts, padding counted, that are read before the other sequences step again."""

_MODEL_FILE = "model.onnx"


@dataclass(slots=True)
class _Sequence:
    """Where a sequence lies, how much of it is cached, and what of its prompt is not."""

    row: int
    prompt: tuple[int, ...]
    cached: int = 0


class CachedDecoder:
    """One model and the rows of its cache; see `serving.generation.protocol.Decoder`.

    Args:
        session: the graph and the cache.
        context_tokens: longest sequence.
        cache_tokens: how many tokens the sequences may hold together; what they leave behind is
            given back to the system beyond that.
    """

    def __init__(self, session: CachedSession, *, context_tokens: int, cache_tokens: int) -> None:
        self._session: CachedSession | None = session
        self._rows = int(session.rows)
        self._context_tokens = context_tokens
        self._cache_tokens = cache_tokens
        self._next = 0
        self._sequences: dict[int, _Sequence] = {}
        self._touched = [0] * session.rows

    @property
    def name(self) -> str:
        """`onnx`."""
        return "onnx"

    @property
    def context_tokens(self) -> int:
        """Longest sequence: prompt and growth."""
        return self._context_tokens

    @property
    def max_sequences(self) -> int:
        """How many sequences may be open at once."""
        return self._rows

    @property
    def cache_tokens(self) -> int:
        """How many tokens the cache holds, over all sequences."""
        return self._cache_tokens

    def cost(self, prompt: Prompt, max_new_tokens: int) -> int:
        """Return the tokens of cache that a sequence may come to need."""
        return len(prompt.ids) + max_new_tokens

    def open(self, prompt: Prompt) -> int:
        """Take a row for a sequence; nothing runs yet.

        Raises:
            InferenceError: no row is free, or the prompt is empty.
        """
        if not prompt.ids or prompt.source is not None:
            raise InferenceError("A decoder alone reads a prompt of at least one token.")
        return self._place(prompt.ids)

    def prefill(self, sequences: Sequence[int]) -> list[Array | None]:
        """Read the next part of the prompts; of the first ones, as far as a turn allows.

        Raises:
            InferenceError: the model failed; the sequences are as they were.
        """
        self._close_ranks()
        found: list[Array | None] = [None] * len(sequences)
        room = PREFILL_TOKENS
        for group in self._grouped(sequences):
            longest = max(len(self._unread(number)) for _, number in group)
            part = min(longest, room)
            if part <= 0:
                break
            for place, logits in self._read(group, part):
                found[place] = logits
            room -= part * len(group)
        return found

    def step(self, sequences: Sequence[int], tokens: Sequence[int]) -> Array:
        """Add one token to each sequence; return the logits after it, (sequences, vocabulary).

        Raises:
            InferenceError: the model failed; the sequences are as they were.
        """
        self._close_ranks()
        given = {number: (token,) for number, token in zip(sequences, tokens, strict=True)}
        first, logits = self._run(given)
        return logits[[self._sequences[number].row - first for number in sequences]]

    def fork(self, parents: Sequence[int]) -> list[int]:
        """Return one sequence for each of `parents`: the first time itself, then copies of it.

        Raises:
            InferenceError: no row is free for a copy.
        """
        forked: list[int] = []
        for parent in parents:
            forked.append(self._copied(parent) if parent in forked else parent)
        return forked

    def close(self, sequence: int) -> None:
        """Give the row of a sequence back."""
        self._sequences.pop(sequence, None)
        if self._session is not None and sum(self._touched) > self._cache_tokens:
            used = {one.row for one in self._sequences.values()}
            for row in [row for row in range(self._rows) if self._touched[row] and row not in used]:
                self._session.release(row)
                self._touched[row] = 0

    def shutdown(self) -> None:
        """Free model and cache; calling it twice does no harm."""
        self._session = None
        self._sequences.clear()

    def _place(self, prompt: tuple[int, ...]) -> int:
        used = {one.row for one in self._sequences.values()}
        free = [row for row in range(self._rows) if row not in used]
        if not free:
            raise InferenceError("No place is free for another sequence.")
        self._next += 1
        self._sequences[self._next] = _Sequence(free[0], prompt)
        return self._next

    def _copied(self, parent: int) -> int:
        original = self._sequences[parent]
        number = self._place(original.prompt)
        self._carry(original, self._sequences[number].row)
        self._sequences[number].cached = original.cached
        return number

    def _carry(self, sequence: _Sequence, row: int) -> None:
        if sequence.cached:
            self._model().copy(sequence.row, row, sequence.cached)
            self._touched[row] = max(self._touched[row], sequence.cached)

    def _close_ranks(self) -> None:
        """Let the last sequences fill the rows that others left."""
        count = len(self._sequences)
        used = {one.row for one in self._sequences.values()}
        holes = [row for row in range(count) if row not in used]
        outside = [one for one in self._sequences.values() if one.row >= count]
        for sequence, row in zip(outside, holes, strict=True):
            self._carry(sequence, row)
            sequence.row = row

    def _unread(self, number: int) -> tuple[int, ...]:
        sequence = self._sequences[number]
        return sequence.prompt[sequence.cached :]

    def _grouped(self, sequences: Sequence[int]) -> list[list[tuple[int, int]]]:
        """Return prompts to be read together, each with its place in `sequences`.

        Those that fit into what a turn may read are filled up to the longest of them; longer ones,
        and what was begun, are read alone.
        """
        short: list[tuple[int, int]] = []
        alone: list[list[tuple[int, int]]] = []
        longest = 0
        for place, number in enumerate(sequences):
            length = len(self._unread(number))
            fits = max(longest, length) * (len(short) + 1) <= PREFILL_TOKENS
            # A row between would be read for nothing; only neighbours are read together.
            next_to = not short or self._sequences[number].row == self._row(short[-1][1]) + 1
            if fits and next_to and not self._sequences[number].cached:
                short.append((place, number))
                longest = max(longest, length)
            else:
                alone.append([(place, number)])
        return [short, *alone] if short else alone

    def _row(self, number: int) -> int:
        return self._sequences[number].row

    def _read(self, group: Sequence[tuple[int, int]], part: int) -> list[tuple[int, Array | None]]:
        """Run a part of each prompt; return the logits of those that are read to the end."""
        first, logits = self._run({number: self._unread(number)[:part] for _, number in group})
        return [
            (place, None if self._unread(number) else logits[self._row(number) - first])
            for place, number in group
        ]

    def _run(self, given: Mapping[int, tuple[int, ...]]) -> tuple[int, Array]:
        """Add tokens to sequences; return the first row that ran, and the logits from there on."""
        by_row = {self._row(number): (number, tokens) for number, tokens in given.items()}
        cached = {one.row: one.cached for one in self._sequences.values()}
        first, last = min(by_row), max(by_row)
        rows = range(first, last + 1)
        try:
            logits = self._model().run(
                first,
                [by_row[row][1] if row in by_row else () for row in rows],
                [cached.get(row, 0) for row in rows],
            )
        # ONNX Runtime's exceptions share no base class of their own.
        except Exception as error:
            raise InferenceError("The model failed on this batch.") from error
        for row, (number, tokens) in by_row.items():
            self._sequences[number].cached += len(tokens)
            self._touched[row] = max(self._touched[row], self._sequences[number].cached)
        return first, logits

    def _model(self) -> CachedSession:
        if self._session is None:
            raise InferenceError("The engine is closed.")
        return self._session


def open_cached(
    directory: Path, *, engine: str, threads: int, max_sequences: int, cache_bytes: int
) -> CachedDecoder:
    """Open the export in `directory`.

    Args:
        directory: an export of ours.
        engine: `onnx`; there is no other for a decoder alone.
        threads: cores that one run may use.
        max_sequences: how many may be open at once.
        cache_bytes: of keys and values, over all of them.

    Raises:
        LoadError: the directory is no export, or another engine is asked for.
        IntegrityError: ONNX Runtime cannot load the model.
    """
    if engine != "onnx":
        raise LoadError(
            f"Text generation is not served by {engine!r}.",
            hint="It needs an export for ONNX Runtime: leave --engine out.",
        )
    model = read_directory(directory)
    context = model.exported_max_tokens
    if model.exported_task is None or context is None:
        raise LoadError(
            f"{directory} is no export.",
            hint="Make one with `registry export`; ONNX files of an artifact are not run.",
        )
    session = open_cached_session(
        directory / _MODEL_FILE,
        threads=threads,
        rows=max_sequences,
        capacity_tokens=context,
        row_bytes=cache_bytes,
    )
    cache_tokens = cache_bytes // session.token_bytes
    return CachedDecoder(
        session, context_tokens=min(context, cache_tokens), cache_tokens=cache_tokens
    )
