"""What crosses the socket between the HTTP process and a worker, and the seam both ends share.

Values are plain (msgpack's types), so that nothing that arrives can run code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import msgspec

from serving.config import CoreLimits
from serving.errors import BY_TYPE, ServingError
from serving.generation.protocol import Piece


class Problem(msgspec.Struct, frozen=True, array_like=True, tag="problem"):
    """A ServingError in a form that crosses a process boundary.

    Also the outcome of one item that failed while its neighbours did not.
    """

    error_type: str
    message: str
    hint: str = ""
    retry_after_s: float | None = None

    @classmethod
    def of(cls, error: ServingError) -> Problem:
        """Return the wire form of `error`."""
        return cls(error.error_type, error.message, error.hint, error.retry_after_s)

    def error(self) -> ServingError:
        """Return the error again; an unknown type becomes the root class."""
        kind = BY_TYPE.get(self.error_type, ServingError)
        return kind(self.message, hint=self.hint, retry_after_s=self.retry_after_s)


class Done(msgspec.Struct, frozen=True, array_like=True, tag="done"):
    """The outcome of one item that was answered.

    Attributes:
        value: what the task's `postprocess` returned; plain values.
        tokens: true length of all its rows, special tokens included.
        batch_rows: for each of its rows, how many ran together with it, itself included.
        tokenize_ms, queue_ms, inference_ms, postprocess_ms: time in each stage; of several rows,
            the slowest counts.
        grown: tokens that were generated; 0 of tasks that generate none.
    """

    value: Any
    tokens: int
    batch_rows: list[int]
    tokenize_ms: float
    queue_ms: float
    inference_ms: float
    postprocess_ms: float
    grown: int = 0


Outcome = Done | Problem


class PredictRequest(msgspec.Struct, frozen=True, array_like=True):
    """One request for predictions.

    Attributes:
        items: inputs, each in the form that the task's `preprocess` takes.
        parameters: the task's parameters, the same for all items.
        timeout_s: when an answer is of no use any more; None for never.
    """

    items: list[Any]
    parameters: dict[str, Any] = {}
    timeout_s: float | None = None


Tell: TypeAlias = Callable[[list[Piece]], None]
"""Takes the tokens of a streamed answer as they come, in the event loop; must not wait."""


class Predictor(Protocol):
    """Whatever answers predictions for one model version: a core in-process, or a worker."""

    async def predict(self, request: PredictRequest) -> list[Outcome]:
        """Return one outcome per item, in the order of the items.

        Cancelling the call drops what has not begun to run.

        Raises:
            OverloadedError: the queue is full; nothing was enqueued.
            DeadlineExceededError: `timeout_s` passed.
            NotReadyError: stopping, or the process died (WorkerCrashedError).
        """
        ...


class WorkerPlan(msgspec.Struct, frozen=True):
    """All that a worker needs to know to load one version.

    Attributes:
        directory: folder with the model (an export, or a snapshot for torch).
        task: such as `text-classification`; empty lets the directory say.
        engine: `onnx`, `openvino` or `torch`.
        engine_threads: threads inside the engine for one batch.
        limits: see CoreLimits.
        warmup: whether to run sample inputs before the worker says that it is ready.
    """

    directory: str
    task: str
    engine: str
    engine_threads: int = 1
    limits: CoreLimits = CoreLimits()
    warmup: bool = True


class Load(msgspec.Struct, frozen=True, array_like=True, tag="load"):
    """To the worker, once and first: load this."""

    plan: WorkerPlan


class Loaded(msgspec.Struct, frozen=True, array_like=True, tag="loaded"):
    """From the worker: ready for requests."""

    task: str
    engine: str
    pid: int
    load_s: float


class LoadFailed(msgspec.Struct, frozen=True, array_like=True, tag="load-failed"):
    """From the worker, before it exits: the version cannot be served."""

    problem: Problem


class Predict(msgspec.Struct, frozen=True, array_like=True, tag="predict"):
    """To the worker: answer this; `id` is unique on this connection.

    A request that streams has one item. `Pieces` come before its Answer, whose value is the last
    event: the tokens that were not told, the text and how it ended (see `TextGeneration.final`).
    """

    id: int
    request: PredictRequest
    stream: bool = False


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag="cancel"):
    """To the worker: nobody waits for this answer any more."""

    id: int


class Ping(msgspec.Struct, frozen=True, array_like=True, tag="ping"):
    """To the worker: are you there?"""

    id: int


class Answer(msgspec.Struct, frozen=True, array_like=True, tag="answer"):
    """From the worker: outcomes in the order of the items (empty for a Ping)."""

    id: int
    outcomes: list[Outcome]


class Pieces(msgspec.Struct, frozen=True, array_like=True, tag="pieces"):
    """From the worker: the next tokens of a streamed answer.

    They are not acknowledged: what may be under way is bounded by the length of an answer.
    """

    id: int
    pieces: list[Piece]


class Refused(msgspec.Struct, frozen=True, array_like=True, tag="refused"):
    """From the worker: the request as a whole failed."""

    id: int
    problem: Problem


ToWorker = Load | Predict | Cancel | Ping
FromWorker = Loaded | LoadFailed | Answer | Pieces | Refused
