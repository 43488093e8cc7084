"""One prediction from admission to record, whatever dialect it came in.

A dialect reads a body into items and shapes values into a body; all between is here: which
deployment, whether there is room, the deadline, the outcome of each item, the counters.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from serving.deployment import Deployment
from serving.errors import OverloadedError, RequestCancelledError, ServingError
from serving.fleet import Fleet
from serving.prepare.plan import Prepared
from serving.streaming import Streaming
from serving.telemetry import GaugeSample, RequestRecord, Telemetry
from serving.worker.messages import Done, Outcome, PredictRequest, Problem

STAGES = ("tokenize", "queue", "inference", "postprocess")


InputsT = TypeVar("InputsT", bound="Inputs")
ResultT = TypeVar("ResultT")


class Run(Protocol):
    """Awaits work for a client, and gives up when the client does."""

    def __call__(self, work: Coroutine[Any, Any, ResultT]) -> Awaitable[ResultT]:
        """Return the result of `work`."""


class Inputs(Protocol):
    """What a dialect reads from a body."""

    @property
    def items(self) -> list[Any]:
        """Inputs for the task, at least one."""

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters for the task."""

    @property
    def stream(self) -> bool:
        """Whether the one item's answer is to be told token by token."""


@dataclass(frozen=True, slots=True)
class Answered(Generic[InputsT]):
    """An answer, ready to be shaped.

    Attributes:
        inputs: what was asked.
        values: one per item, in order.
        version: what answered.
        stages_ms: milliseconds of each stage; `total` from admission on.
    """

    inputs: InputsT
    values: list[Any]
    version: Prepared
    stages_ms: dict[str, float]

    def headers(self) -> dict[str, str]:
        """Return the headers that name the version and the time of each stage."""
        timing = ", ".join(f"{stage};dur={spent:.2f}" for stage, spent in self.stages_ms.items())
        return {**version_headers(self.version), "server-timing": timing}


@dataclass(slots=True)
class _Course:
    """How a request fared, for its record."""

    deployment: Deployment
    started: float
    version: Prepared | None = None
    items: int = 0
    status: int = 200
    done: list[Done] = field(default_factory=list)
    first_token_ms: float | None = None
    told_tokens: int = 0


class DataPlane:
    """Answers predictions out of a fleet and counts them.

    Args:
        fleet: the deployments.
        telemetry: gets one record a request.
        max_queue: items inside a deployment, at most.
        timeout_s: from the complete body to the answer.
    """

    def __init__(
        self, fleet: Fleet, telemetry: Telemetry, *, max_queue: int, timeout_s: float
    ) -> None:
        self._fleet = fleet
        self._telemetry = telemetry
        self._max_queue = max_queue
        self._timeout_s = timeout_s
        self._inside: dict[str, int] = {deployment.name: 0 for deployment in fleet}
        self._streams: set[Streaming] = set()

    async def predict(
        self,
        name: str,
        read: Callable[[], Awaitable[InputsT]],
        run: Run,
    ) -> Answered[InputsT] | Streaming:
        """Answer one request for the deployment `name`; a streamed answer has begun.

        Args:
            name: as the client wrote it.
            read: receives and decodes the body; not called when there is no room.
            run: awaits the prediction, and gives up when the client does.

        Raises:
            ServingError: any; all items fail with the first that failed.
        """
        course = _Course(self._fleet.get(name), time.perf_counter())
        streaming: Streaming | None = None
        try:
            self._check_room(name)
            inputs = await read()
            course.items = len(inputs.items)
            request = PredictRequest(inputs.items, inputs.parameters, self._timeout_s)
            if inputs.stream:
                streaming = self._stream(course, request)
                return await run(streaming.open())
            self._inside[name] += course.items
            try:
                reply = await run(course.deployment.predict(request))
            finally:
                self._inside[name] -= course.items
            course.version = reply.version
            values = _values(course, reply.outcomes)
            return Answered(inputs, values, reply.version, _stages(course))
        except ServingError as error:
            course.status = error.status
            raise
        except BaseException:
            course.status = 500
            raise
        finally:
            # A stream is recorded when it ends.
            if streaming is None:
                self._record(course)

    def _stream(self, course: _Course, request: PredictRequest) -> Streaming:
        name = course.deployment.name
        self._inside[name] += course.items

        def end(streaming: Streaming, error: BaseException | None) -> None:
            self._inside[name] -= course.items
            self._streams.discard(streaming)
            course.version = streaming.version
            course.first_token_ms = streaming.first_token_ms
            course.told_tokens = streaming.tokens
            if streaming.done is not None:
                course.done.append(streaming.done)
            if isinstance(error, ServingError):
                course.status = error.status
            elif error is not None:
                gone = isinstance(error, asyncio.CancelledError | GeneratorExit)
                course.status = RequestCancelledError.status if gone else 500
            self._record(course)

        streaming = Streaming(course.deployment, request, end)
        self._streams.add(streaming)
        return streaming

    def break_off(self, error: ServingError) -> None:
        """End the streams that are open with `error`: their clients cannot tell a cut otherwise."""
        for streaming in [*self._streams]:
            streaming.break_off(error)

    def gauges(self) -> Iterable[GaugeSample]:
        """Return the current values for Prometheus."""
        for deployment in self._fleet:
            labels = {"deployment": deployment.name}
            inside = self._inside[deployment.name]
            yield GaugeSample("items_in_flight", "Items accepted, not answered.", inside, labels)
            yield GaugeSample("ready", "1 when it answers.", float(deployment.ready), labels)
            yield GaugeSample("swaps", "Version swaps since the start.", deployment.swaps, labels)

    def _check_room(self, name: str) -> None:
        if self._inside[name] >= self._max_queue:
            raise OverloadedError(
                f"The queue of {name!r} is full.",
                hint="Send again after Retry-After, or start the server with a longer --max-queue.",
                retry_after_s=1,
            )

    def _record(self, course: _Course) -> None:
        version = course.version or course.deployment.version
        if version is None:
            return
        self._telemetry.record(
            RequestRecord(
                deployment=course.deployment.name,
                pinned_name=version.pinned_name,
                digest=version.digest,
                ok=course.status < 400,
                status=course.status,
                items=course.items,
                batch_sizes=tuple(rows for done in course.done for rows in done.batch_rows),
                stages_ms=_stages(course),
                labels=tuple(_top_labels(course.done)),
                prompt_tokens=sum(done.tokens for done in course.done if done.grown),
                # A stream that was not read to its end has told some.
                generated_tokens=sum(done.grown for done in course.done) or course.told_tokens,
            )
        )


def version_headers(version: Prepared) -> dict[str, str]:
    """Return the headers that name a version."""
    return {
        "x-model-version": header_text(version.pinned_name),
        "x-model-digest": version.digest,
    }


def header_text(text: str) -> str:
    """Return `text` as a header may carry it: printable ASCII, anything else replaced."""
    return "".join(mark if " " <= mark <= "~" else "?" for mark in text)


def _values(course: _Course, outcomes: Sequence[Outcome]) -> list[Any]:
    for index, outcome in enumerate(outcomes):
        if isinstance(outcome, Problem):
            error = outcome.error()
            if len(outcomes) > 1:
                error.message = f"inputs[{index}]: {error.message}"
            raise error
        course.done.append(outcome)
    return [done.value for done in course.done]


def _stages(course: _Course) -> dict[str, float]:
    """Return milliseconds by stage; of several items, the slowest counts."""
    stages = {"total": (time.perf_counter() - course.started) * 1e3}
    if course.done:
        for stage in STAGES:
            stages[stage] = max(getattr(done, f"{stage}_ms") for done in course.done)
    if course.first_token_ms is not None:
        stages["first_token"] = course.first_token_ms
    return stages


def _top_labels(outcomes: Iterable[Done]) -> Iterable[str]:
    for done in outcomes:
        best = done.value[0] if isinstance(done.value, list) and done.value else None
        if isinstance(best, dict) and isinstance(best.get("label"), str):
            yield best["label"]
