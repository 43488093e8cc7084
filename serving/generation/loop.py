"""The loop: sequences of all answers step together, and join and leave between steps.

Synchronous and called by one thread. An answer waits until the decoder has places for all the
sequences that its search may have, and room for as long as they may become: what has begun is never
cut short. Those that came first begin first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from serving.generation.protocol import Decoder, Job, Piece
from serving.tasks.protocol import Array


@dataclass(frozen=True, slots=True)
class Ended:
    """A job that is over.

    Attributes:
        key: as it was given with the job.
        error: why it failed; None when its search is complete.
        most_rows: most sequences that stepped together with it, its own included.
        tokens: how often its search chose: tokens of its answer, or steps of its beams.
    """

    key: Hashable
    error: BaseException | None
    most_rows: int
    tokens: int = 0


@dataclass(eq=False, slots=True)
class _Live:
    """A job whose sequences are open.

    `logits` are what its search has not seen yet; None while the prompt is not read to its end.
    `tokens` are what its sequences have not stepped by yet.
    """

    key: Hashable
    job: Job
    sequences: list[int]
    cost: int
    logits: Array | None = None
    tokens: Sequence[int] = ()
    most_rows: int = 0
    chosen: int = 0


class GenerationLoop:
    """Grows the answers of many jobs with one decoder.

    Args:
        decoder: owns the cache; not shut down here.
        max_jobs: how many may grow at once.
        tell: told of what a stream may say, with the job's key; called from `turn`.
    """

    def __init__(
        self,
        decoder: Decoder,
        *,
        max_jobs: int,
        tell: Callable[[Hashable, Sequence[Piece]], None] | None = None,
    ) -> None:
        self._decoder = decoder
        self._max_jobs = max_jobs
        self._tell = tell
        self._waiting: deque[tuple[Hashable, Job]] = deque()
        self._live: list[_Live] = []

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._live and not self._waiting

    @property
    def growing(self) -> list[Hashable]:
        """Keys of the jobs that have begun."""
        return [live.key for live in self._live]

    def fits(self, job: Job) -> bool:
        """Return whether the decoder could ever hold this job."""
        decoder = self._decoder
        length = len(job.prompt.ids) + job.max_new_tokens
        return (
            job.width <= decoder.max_sequences
            and length <= decoder.context_tokens
            and self._cost(job) <= decoder.cache_tokens
        )

    def add(self, key: Hashable, job: Job) -> None:
        """Take a job that fits; it waits for its turn."""
        self._waiting.append((key, job))

    def drop(self, key: Hashable) -> None:
        """Forget the jobs of this key, whether they have begun or not."""
        self._waiting = deque(one for one in self._waiting if one[0] != key)
        for live in [one for one in self._live if one.key == key]:
            self._leave(live)

    def admit(self) -> None:
        """Let jobs begin for which there is room; nothing runs yet."""
        while self._waiting and self._has_room(self._waiting[0][1]):
            key, job = self._waiting.popleft()
            sequence = self._decoder.open(job.prompt)
            self._live.append(_Live(key, job, [sequence], self._cost(job)))

    def turn(self) -> list[Ended]:
        """Let every open sequence read its prompt or grow by a token; return what is over."""
        over = self._read_prompts()
        over += self._advance()
        over += self._step()
        return over + self._advance()

    def _read_prompts(self) -> list[Ended]:
        reading = [live for live in self._live if live.logits is None and not live.tokens]
        return self._read(reading) if reading else []

    def _read(self, reading: list[_Live]) -> list[Ended]:
        """Run prompts; of several that fail together, each by itself."""
        try:
            found = self._decoder.prefill([live.sequences[0] for live in reading])
        except Exception as error:
            if len(reading) == 1:
                return [self._fail(reading[0], error)]
            return [ended for live in reading for ended in self._read([live])]
        for live, logits in zip(reading, found, strict=True):
            live.logits = None if logits is None else logits[None]
            live.most_rows = max(live.most_rows, len(reading))
        return []

    def _advance(self) -> list[Ended]:
        """Let searches choose where there are new logits."""
        over = []
        for live in [one for one in self._live if one.logits is not None]:
            try:
                complete = self._choose(live)
            # A search fails on its own logits: its answer is lost, and no other.
            except Exception as error:
                over.append(self._fail(live, error))
                continue
            if complete:
                self._leave(live)
                over.append(Ended(live.key, None, live.most_rows, live.chosen))
        return over

    def _choose(self, live: _Live) -> bool:
        if live.logits is None:
            return False
        move = live.job.search.advance(live.logits)
        live.logits = None
        live.chosen += 1
        if move.pieces and self._tell is not None:
            self._tell(live.key, move.pieces)
        if move.complete:
            return True
        parents = [live.sequences[parent] for parent in move.parents]
        for number in set(live.sequences) - set(parents):
            self._decoder.close(number)
        # What was closed is gone, also if the copies fail.
        live.sequences = [*dict.fromkeys(parents)]
        live.sequences = self._decoder.fork(parents)
        live.tokens = move.tokens
        return False

    def _step(self) -> list[Ended]:
        moving = [live for live in self._live if live.tokens]
        return self._run(moving) if moving else []

    def _run(self, moving: list[_Live]) -> list[Ended]:
        """Step by the chosen tokens; of several jobs that fail together, each by itself."""
        sequences = [number for live in moving for number in live.sequences]
        tokens = [token for live in moving for token in live.tokens]
        try:
            logits = self._decoder.step(sequences, tokens)
        except Exception as error:
            if len(moving) == 1:
                return [self._fail(moving[0], error)]
            return [ended for live in moving for ended in self._run([live])]
        start = 0
        for live in moving:
            end = start + len(live.sequences)
            live.logits = np.array(logits[start:end], dtype=np.float32)
            live.tokens, start = (), end
            live.most_rows = max(live.most_rows, len(sequences))
        return []

    def _has_room(self, job: Job) -> bool:
        decoder = self._decoder
        width = sum(live.job.width for live in self._live)
        cost = sum(live.cost for live in self._live)
        return (
            len(self._live) < self._max_jobs
            and width + job.width <= decoder.max_sequences
            and cost + self._cost(job) <= decoder.cache_tokens
        )

    def _cost(self, job: Job) -> int:
        return job.width * self._decoder.cost(job.prompt, job.max_new_tokens)

    def _fail(self, live: _Live, error: BaseException) -> Ended:
        self._leave(live)
        return Ended(live.key, error, live.most_rows, live.chosen)

    def _leave(self, live: _Live) -> None:
        self._live.remove(live)
        for number in live.sequences:
            self._decoder.close(number)
