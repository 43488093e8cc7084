"""The stable names under which a window's numbers appear in W&B; pure.

History (one row a window): `requests`, `errors`, `items`, `requests_per_s`,
`error_rate`, `status/<code>`, `latency/<stage>/{p50,p90,p95,p99,mean,max}_ms`,
`batch/count`, `batch/size_mean`, `batch/size_max`, `labels/<label>`, `tokens/prompt`,
`tokens/generated`, `tokens/generated_per_s` (tasks that generate),
`window/{seconds,first_unix_s,last_unix_s,dropped}`.
Summary: the same since the server began, under `total/…`.
"""

from __future__ import annotations

import re

from serving.telemetry.windows import QUANTILES, Aggregate, Window

_UNSAFE = re.compile(r"[^A-Za-z0-9_+ -]")
_MAX_NAME_CHARACTERS = 64


def window_metrics(window: Window, *, dropped: int) -> dict[str, float]:
    """Return a window's history row; `dropped` counts windows lost to the spool's cap so far."""
    aggregate = window.aggregate
    rates = {"requests_per_s": aggregate.requests / window.seconds}
    if aggregate.generated_tokens:
        rates["tokens/generated_per_s"] = aggregate.generated_tokens / window.seconds
    return {
        **_counts(aggregate),
        **rates,
        **_latencies(aggregate),
        "window/seconds": window.seconds,
        "window/first_unix_s": aggregate.first_wall_s,
        "window/last_unix_s": aggregate.last_wall_s,
        "window/dropped": dropped,
    }


def running_totals(window: Window) -> dict[str, float]:
    """Return the summary values up to and including a window."""
    aggregate = window.running
    values = {**_counts(aggregate), **_latencies(aggregate), "windows": window.index}
    return {f"total/{name}": value for name, value in values.items()}


def _counts(aggregate: Aggregate) -> dict[str, float]:
    values: dict[str, float] = {
        "requests": aggregate.requests,
        "errors": aggregate.errors,
        "items": aggregate.items,
        "error_rate": aggregate.errors / aggregate.requests if aggregate.requests else 0.0,
    }
    for status, count in aggregate.statuses.items():
        values[f"status/{status}"] = count
    if aggregate.generated_tokens:
        values["tokens/prompt"] = aggregate.prompt_tokens
        values["tokens/generated"] = aggregate.generated_tokens
    for label, count in aggregate.labels.items():
        name = f"labels/{safe_name(label)}"
        values[name] = values.get(name, 0) + count
    if aggregate.batch_sizes:
        batches = sum(aggregate.batch_sizes.values())
        items = sum(size * count for size, count in aggregate.batch_sizes.items())
        values["batch/count"] = batches
        values["batch/size_mean"] = items / batches
        values["batch/size_max"] = max(aggregate.batch_sizes)
    return values


def _latencies(aggregate: Aggregate) -> dict[str, float]:
    values = {}
    for stage, histogram in aggregate.stages.items():
        found = histogram.quantiles_ms(QUANTILES)
        found["mean_ms"] = histogram.mean_ms
        found["max_ms"] = histogram.maximum_ms
        for name, value in found.items():
            values[f"latency/{stage}/{name}"] = round(value, 4)
    return values


def safe_name(label: str) -> str:
    """Return a label as a part of a metric name: W&B reads dots and slashes as nesting."""
    return _UNSAFE.sub("_", label)[:_MAX_NAME_CHARACTERS] or "_"
