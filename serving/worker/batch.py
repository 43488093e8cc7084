"""Run one batch of rows: collate, engine, postprocess; a row that fails, fails alone.

Synchronous, called in an engine thread. Knows tasks and engines by their protocols only.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog

from serving.engines.protocol import Engine
from serving.errors import InferenceError, ServingError
from serving.tasks.protocol import Row, Task
from serving.worker.messages import Done, Outcome, Problem

_log = structlog.get_logger(__name__)

_FAILED = InferenceError(
    "The model failed on this input.", hint="The server's log has the cause under this request id."
)


@dataclass(frozen=True, slots=True)
class RowJob:
    """A row and what its outcome needs.

    Attributes:
        row: as the task made it.
        parameters: of its request.
        tokenize_ms, queue_ms: time in the stages before.
    """

    row: Row
    parameters: Mapping[str, Any]
    tokenize_ms: float
    queue_ms: float


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


def run_batch(task: Task, engine: Engine, jobs: Sequence[RowJob]) -> list[Outcome]:
    """Run rows together and return one outcome each, in order; never raises.

    A batch that fails is halved until the rows that fail are alone: the others
    are answered as if they had never met.
    """
    started = time.perf_counter()
    try:
        inputs = task.collate([job.row for job in jobs], engine.input_names)
        outputs = engine.run(inputs)
    # BaseException: native code reaches us as panics that are no Exception, and
    # an engine thread must not end with a request inside it.
    except BaseException as error:
        if len(jobs) == 1:
            return [problem_of(error, "engine")]
        half = len(jobs) // 2
        return [*run_batch(task, engine, jobs[:half]), *run_batch(task, engine, jobs[half:])]
    inference_ms = (time.perf_counter() - started) * 1e3
    return [
        _postprocess(task, outputs, index, job, len(jobs), inference_ms)
        for index, job in enumerate(jobs)
    ]


def _postprocess(
    task: Task,
    outputs: Mapping[str, np.ndarray[Any, Any]],
    index: int,
    job: RowJob,
    batch_rows: int,
    inference_ms: float,
) -> Outcome:
    started = time.perf_counter()
    try:
        value = task.postprocess(outputs, index, job.parameters)
    except BaseException as error:
        return problem_of(error, "postprocess")
    return Done(
        value=value,
        tokens=job.row.length,
        batch_rows=batch_rows,
        tokenize_ms=job.tokenize_ms,
        queue_ms=job.queue_ms,
        inference_ms=inference_ms,
        postprocess_ms=(time.perf_counter() - started) * 1e3,
    )
