"""One input on its way: its rows run by themselves, and its answer is made when all have run."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from serving.tasks.protocol import Outputs, Row, Task
from serving.worker.batch import Ran, problem_of
from serving.worker.messages import Done, Outcome, Problem


class Item:
    """Gathers what came of the rows of one input, in any order and from any thread.

    Args:
        index: position among the inputs of its request.
        rows: as the task made them, at least one.
        parameters: of its request.
        tokenize_ms: how long making the rows took.
    """

    __slots__ = (
        *("_batch_rows", "_inference_ms", "_lock", "_missing", "_outputs", "_parameters"),
        *("_problem", "_queue_ms", "_tokenize_ms", "index", "rows"),
    )

    def __init__(
        self, index: int, rows: Sequence[Row], parameters: Mapping[str, Any], tokenize_ms: float
    ) -> None:
        self.index = index
        self.rows = rows
        self._parameters = parameters
        self._tokenize_ms = tokenize_ms
        self._outputs: list[Outputs] = [{}] * len(rows)
        self._batch_rows = [0] * len(rows)
        self._missing = len(rows)
        self._problem: Problem | None = None
        self._queue_ms = 0.0
        self._inference_ms = 0.0
        self._lock = threading.Lock()

    def deliver(self, number: int, result: Ran | Problem, queue_ms: float = 0.0) -> bool:
        """Take what came of row `number`; return True once: when the outcome can be told.

        That is with the last row, or with the first that failed; what comes later is dropped.
        """
        with self._lock:
            if self._problem is not None:
                return False
            if isinstance(result, Problem):
                self._problem = result
                return True
            self._outputs[number] = result.outputs
            self._batch_rows[number] = result.batch_rows
            self._queue_ms = max(self._queue_ms, queue_ms)
            self._inference_ms = max(self._inference_ms, result.inference_ms)
            self._missing -= 1
            return self._missing == 0

    def outcome(self, task: Task) -> Outcome:
        """Return the outcome, for the one caller to whom `deliver` said that it can be told."""
        if self._problem is not None:
            return self._problem
        started = time.perf_counter()
        try:
            value = task.postprocess(self.rows, self._outputs, self._parameters)
        except BaseException as error:
            return problem_of(error, "postprocess")
        return Done(
            value=value,
            tokens=sum(row.length for row in self.rows),
            batch_rows=self._batch_rows,
            tokenize_ms=self._tokenize_ms,
            queue_ms=self._queue_ms,
            inference_ms=self._inference_ms,
            postprocess_ms=(time.perf_counter() - started) * 1e3,
        )
