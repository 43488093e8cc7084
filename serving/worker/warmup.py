"""Sample inputs that a fresh worker runs before it is given a request.

They pay the first-run costs (memory arenas, kernels chosen by shape) and show that the
version answers finite values at all: one that does not is never routed to.
"""

from __future__ import annotations

from serving.errors import LoadError
from serving.tasks.protocol import Samples
from serving.worker.messages import Predictor, PredictRequest, Problem


async def warm(core: Predictor, samples: Samples) -> None:
    """Run the samples of the task.

    Raises:
        LoadError: an answer failed; the message says how.
    """
    request = PredictRequest(list(samples.items), dict(samples.parameters))
    for outcome in await core.predict(request):
        if isinstance(outcome, Problem):
            raise LoadError(
                f"The model failed on a sample input: {outcome.message}",
                hint="The version is not served. Look at its weights and its evaluation.",
            )
