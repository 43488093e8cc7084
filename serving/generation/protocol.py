"""The seams of generation: what the loop asks of a model, of a search, and of a task.

    task     text and parameters  ->  Job: a prompt, a search, what it may cost
    decoder  prompts and tokens   ->  logits of the next token; owns the cache
    search   logits               ->  Move: which tokens come next, or that the answer is complete

The loop (`serving.generation.loop`) knows these three only. A model with an encoder is another
decoder, beam search another search, summarisation another task; none of them needs another loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from serving.tasks.protocol import Array, Samples


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a sequence begins with.

    Attributes:
        ids: tokens that the decoder has before it chooses the first one of its own, at least one.
        source: tokens for the encoder of a model that has one; None for a decoder alone.
    """

    ids: tuple[int, ...]
    source: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """One token of an answer, as a stream tells it.

    Attributes:
        token: its id.
        text: what the answer's text has grown by; empty while a character is incomplete.
        logprob: natural logarithm of its probability, before temperature and the like.
        special: whether it is a special token, which the text leaves out.
    """

    token: int
    text: str
    logprob: float
    special: bool


@dataclass(frozen=True, slots=True)
class Move:
    """How an answer goes on after a step.

    Attributes:
        tokens: next token of each of its sequences; empty when the answer is complete.
        parents: for each of `tokens`, which of the sequences so far (by place) it continues:
            (0,) for a single one; beams that change their parents name them here, also when there
            are more or fewer of them than before.
        pieces: what a stream may be told now, in order.
    """

    tokens: Sequence[int]
    parents: Sequence[int] = (0,)
    pieces: Sequence[Piece] = ()

    @property
    def complete(self) -> bool:
        """Whether the answer is complete."""
        return not self.tokens


class Search(Protocol):
    """Chooses the tokens of one answer; has state, and belongs to that answer alone.

    Runs in the engine's thread. The choice depends on the logits given and on nothing that other
    answers do.
    """

    def advance(self, logits: Array) -> Move:
        """Choose the next tokens.

        Args:
            logits: float32, shape (sequences, vocabulary): of the prompt's last token at first
                (one sequence), then one row for each token of the last move, in its order. It may
                be written to.

        Raises:
            NonFiniteOutputError: the model answered NaN.
        """


@dataclass(frozen=True, slots=True)
class Job:
    """One answer to be generated.

    Attributes:
        prompt: what it begins with.
        search: chooses its tokens.
        width: sequences that the search may have at once: 1, or the number of beams.
        max_new_tokens: longest growth of a sequence; what the cache keeps room for.
        facts: what the task needs to make the answer; its own.
    """

    prompt: Prompt
    search: Search
    width: int
    max_new_tokens: int
    facts: Any = None


class GenerationTask(Protocol):
    """Turns an input into jobs and finished jobs into its answer; called by several threads."""

    @property
    def name(self) -> str:
        """Hugging Face's name of the task, such as `text-generation`."""

    @property
    def samples(self) -> Samples:
        """Inputs to warm a worker with; their parameters keep them short."""

    def prepare(self, item: object, parameters: Mapping[str, object]) -> Sequence[Job]:
        """Turn one input into its jobs, at least one; several when several answers are asked for.

        Raises:
            InvalidInputError: the input or a parameter is not what the task takes.
        """

    def answer(self, jobs: Sequence[Job]) -> object:
        """Return the answer to an input whose jobs are complete, as plain values."""

    def final(self, job: Job) -> dict[str, Any]:
        """Return what the last event of a job's stream says besides its token; plain values."""


class Decoder(Protocol):
    """A loaded model that grows sequences, and the cache that they grow in.

    Called by one thread at a time. A sequence is named by a number that `open` gives; where its
    cache lies is the decoder's own business. Logits of a sequence do not depend on the others.
    """

    @property
    def name(self) -> str:
        """`onnx` or `torch`."""

    @property
    def context_tokens(self) -> int:
        """Longest sequence: prompt and growth."""

    @property
    def max_sequences(self) -> int:
        """How many sequences may be open at once."""

    @property
    def cache_tokens(self) -> int:
        """How many tokens the cache holds, over all sequences."""

    def cost(self, prompt: Prompt, max_new_tokens: int) -> int:
        """Return the tokens of cache that a sequence may come to need."""

    def open(self, prompt: Prompt) -> int:
        """Take a place for a sequence; nothing runs yet.

        Raises:
            InferenceError: no place is free; the loop counts, and never asks then.
        """

    def prefill(self, sequences: Sequence[int]) -> list[Array | None]:
        """Run the prompts of opened sequences, or the next part of them.

        Returns:
            For each: the logits that follow its prompt, shape (vocabulary,); None while a part of
            the prompt is left, so that the others' steps need not wait for a long one.

        Raises:
            InferenceError: the model failed.
        """

    def step(self, sequences: Sequence[int], tokens: Sequence[int]) -> Array:
        """Add one token to each sequence; return the logits after it, (sequences, vocabulary).

        Raises:
            InferenceError: the model failed; the sequences are as they were.
        """

    def fork(self, parents: Sequence[int]) -> list[int]:
        """Return one sequence for each of `parents` that goes on from where that one is.

        Beam search: the first mention of a sequence goes on in its place, further mentions get
        copies of its cache. Sequences that are not mentioned stay open; the loop closes them first.

        Raises:
            InferenceError: no place is free for a copy.
        """

    def close(self, sequence: int) -> None:
        """Give the place of a sequence back."""

    def shutdown(self) -> None:
        """Free model and cache; calling it twice does no harm."""
