"""The values that the serving path hands to telemetry; frozen, cheap to make, no I/O."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

STAGES = ("total", "tokenize", "queue", "inference", "postprocess", "first_token")
"""Stages of a request, in the order they are shown; `total` covers the others.

`first_token` is what a stream's client waits for: from admission to the first token.
"""


class RequestRecord(msgspec.Struct, frozen=True, gc=False):
    """One answered request.

    Attributes:
        deployment: the name under which the version is served.
        pinned_name: `entity/project/collection:vN`; any other text (such as a local
            directory) is counted for Prometheus but not reported to W&B.
        digest: SHA-256 of the served snapshot, hexadecimal.
        ok: whether the client got a prediction.
        status: HTTP status of the answer.
        items: inputs in the request.
        batch_sizes: size of each engine batch that answered a part of it.
        stages_ms: milliseconds per stage; keys out of `STAGES`, missing ones are not counted.
        labels: the top label of each item, empty for tasks without labels.
        prompt_tokens, generated_tokens: what was read and generated; 0 for tasks that do not
            generate, where they are not shown.
    """

    deployment: str
    pinned_name: str
    digest: str
    ok: bool
    status: int
    items: int
    batch_sizes: tuple[int, ...] = ()
    stages_ms: Mapping[str, float] = {}
    labels: tuple[str, ...] = ()
    prompt_tokens: int = 0
    generated_tokens: int = 0


class ServedVersion(msgspec.Struct, frozen=True):
    """A version that a deployment has begun to serve: what its W&B run's config says.

    Attributes:
        deployment, pinned_name, digest: as in `RequestRecord`.
        engine: name of the engine, such as `onnx`.
        task: name of the task, such as `text-classification`.
        facts: further plain values for the config (precision, threads, …); never secrets.
    """

    deployment: str
    pinned_name: str
    digest: str
    engine: str = ""
    task: str = ""
    facts: Mapping[str, str | int | float | bool] = {}


class GaugeSample(msgspec.Struct, frozen=True):
    """One current value for Prometheus, such as the depth of a queue.

    Attributes:
        name: metric name without the `runport_` prefix, such as `queue_depth`.
        help: one sentence.
        value: the value now.
        labels: label names and values; the same names for each sample of a metric.
    """

    name: str
    help: str
    value: float
    labels: Mapping[str, str] = {}
