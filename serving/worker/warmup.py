"""Sample inputs that a fresh worker runs before it is given a request.

They pay the first-run costs (memory arenas, kernels chosen by shape) and show that the
version answers finite values at all: one that does not is never routed to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from serving.errors import LoadError
from serving.worker.core import WorkerCore
from serving.worker.messages import PredictRequest, Problem

_TEXTS = ("a", "the first words to try", "one text of a middling length to try " * 8)

SAMPLES: Mapping[str, Sequence[Any]] = {"text-classification": _TEXTS}
"""Items by task name; a task without samples is not warmed."""


async def warm(core: WorkerCore, task_name: str) -> None:
    """Run the samples of the task.

    Raises:
        LoadError: an answer failed; the message says how.
    """
    items = list(SAMPLES.get(task_name, ()))
    if not items:
        return
    for outcome in await core.predict(PredictRequest(items)):
        if isinstance(outcome, Problem):
            raise LoadError(
                f"The model failed on a sample input: {outcome.message}",
                hint="The version is not served. Look at its weights and its evaluation.",
            )
