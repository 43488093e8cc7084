"""Run one batch of rows: collate, engine, split; a row that fails, fails alone.

Synchronous, called in an engine thread. Knows tasks and engines by their protocols only.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from serving.engines.protocol import Engine
from serving.errors import InferenceError, ServingError
from serving.tasks.protocol import Outputs, Row, Task
from serving.worker.messages import Problem

_log = structlog.get_logger(__name__)

_FAILED = InferenceError(
    "The model failed on this input.", hint="The server's log has the cause under this request id."
)


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of a row.

    Attributes:
        outputs: the row's own.
        batch_rows: how many rows ran together.
        inference_ms: how long they took together.
    """

    outputs: Outputs
    batch_rows: int
    inference_ms: float


def problem_of(error: BaseException, where: str) -> Problem:
    """Return what the client may see of `error`, and log the rest.

    The text of a foreign exception may hold the input, so only its type and
    place are logged.
    """
    if isinstance(error, ServingError):
        return Problem.of(error)
    _log.error(
        "worker.failed",
        where=where,
        kind=type(error).__name__,
        trace="".join(traceback.format_tb(error.__traceback__)[-4:]),
    )
    return Problem.of(_FAILED)


def run_batch(task: Task, engine: Engine, rows: Sequence[Row]) -> list[Ran | Problem]:
    """Run rows together and return what came of each, in order; never raises.

    A batch that fails is halved until the rows that fail are alone: the others
    are answered as if they had never met.
    """
    started = time.perf_counter()
    try:
        outputs = task.split(rows, engine.run(task.collate(rows, engine.input_names)))
    # BaseException: native code reaches us as panics that are no Exception, and
    # an engine thread must not end with a request inside it.
    except BaseException as error:
        if len(rows) == 1:
            return [problem_of(error, "engine")]
        half = len(rows) // 2
        return [*run_batch(task, engine, rows[:half]), *run_batch(task, engine, rows[half:])]
    inference_ms = (time.perf_counter() - started) * 1e3
    return [Ran(one, len(rows), inference_ms) for one in outputs]
