"""One streamed answer: from the task that waits for it to the events that a client reads.

What may be waiting between the two is bounded by the length of an answer; a client that reads
nothing is ended by the deadline for writing, and its answer with it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from serving.deployment import Deployment
from serving.errors import ServingError
from serving.generation.protocol import Piece
from serving.prepare.plan import Prepared
from serving.worker.messages import Done, PredictRequest, Problem


@dataclass(frozen=True, slots=True)
class Last:
    """The end of a stream.

    Attributes:
        done: what the worker said.
        pieces: the tokens that were not told before; at least one of a complete answer.
        final: what the last event says besides its token.
    """

    pieces: list[Piece]
    final: dict[str, Any]


class Streaming:
    """The tokens of one answer, in order; stops their generation when it is closed.

    Args:
        deployment: answers.
        request: of one item.
        on_end: called once when the stream is over, with the error that ended it, if any, before
            it is raised.
    """

    def __init__(
        self,
        deployment: Deployment,
        request: PredictRequest,
        on_end: Callable[[Streaming, BaseException | None], None],
    ) -> None:
        self._deployment = deployment
        self._request = request
        self._on_end: Callable[[Streaming, BaseException | None], None] | None = on_end
        self._queue: asyncio.Queue[Piece | Last | BaseException] = asyncio.Queue()
        self._started = time.perf_counter()
        self._work: asyncio.Task[None] | None = None
        self._first: Piece | Last | None = None
        self.version: Prepared | None = None
        self.first_token_ms: float | None = None
        self.tokens = 0
        self.done: Done | None = None

    async def open(self) -> Streaming:
        """Ask for the answer and wait for its first token.

        Raises:
            ServingError: there is none; nothing was streamed.
        """
        self._work = asyncio.create_task(self._generate())
        try:
            self._first = await self._take()
        except BaseException as error:
            self.close(error)
            raise
        return self

    async def events(self) -> AsyncIterator[Piece | Last]:
        """Yield the tokens and the end.

        Raises:
            ServingError: the answer broke off.
        """
        failure: BaseException | None = None
        try:
            one = self._first
            while one is not None:
                yield one
                one = None if isinstance(one, Last) else await self._take()
        except BaseException as error:
            failure = error
            raise
        finally:
            self.close(failure)

    def close(self, error: BaseException | None = None) -> None:
        """Stop generating, unless it is over; calling it twice does no harm."""
        if self._work is not None:
            self._work.cancel()
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(self, error)

    def break_off(self, error: ServingError) -> None:
        """Stop generating; what was generated is told, then `error` is raised to who reads."""
        if self._work is not None:
            self._work.cancel()
        self._queue.put_nowait(error)

    async def _take(self) -> Piece | Last:
        one = await self._queue.get()
        if isinstance(one, BaseException):
            raise one
        self.tokens += 1 if isinstance(one, Piece) else len(one.pieces)
        if self.first_token_ms is None:
            self.first_token_ms = (time.perf_counter() - self._started) * 1e3
        return one

    async def _generate(self) -> None:
        def tell(pieces: list[Piece]) -> None:
            for piece in pieces:
                self._queue.put_nowait(piece)

        try:
            # Nothing comes between: this is the version that is asked.
            self.version = self._deployment.version
            reply = await self._deployment.predict(self._request, tell)
            outcome = reply.outcomes[0]
            if isinstance(outcome, Problem):
                raise outcome.error()
        except Exception as error:
            self._queue.put_nowait(error)
            return
        self.done = outcome
        final = dict(outcome.value)
        pieces = [Piece(*one) for one in final.pop("last")]
        self._queue.put_nowait(Last(pieces, final))
