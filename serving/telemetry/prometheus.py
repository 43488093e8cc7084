"""Prometheus text of the running totals; asks for nothing, keeps nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from serving.telemetry.histogram import Histogram
from serving.telemetry.records import GaugeSample
from serving.telemetry.windows import Aggregate, VersionKey

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_VERSION = ("deployment", "version", "digest")
_BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_BUCKET_STEP = 5
"""Every fifth bucket of the fine histogram is a Prometheus bucket: 5 per decade."""

Totals = Mapping[VersionKey, Aggregate]


def render(totals: Totals, gauges: Iterable[GaugeSample]) -> bytes:
    """Return the text exposition of `totals` and `gauges`.

    Every metric is named `runport_…`; latencies are in seconds, as Prometheus asks.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(totals, gauges))
    return generate_latest(registry)


class _Snapshot(Collector):
    """One scrape's values in the form that prometheus-client renders."""

    def __init__(self, totals: Totals, gauges: Iterable[GaugeSample]) -> None:
        self._totals = totals
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        yield _requests(self._totals)
        yield _counter(self._totals, "errors", "Requests without a prediction.")
        yield _counter(self._totals, "items", "Inputs in requests.")
        generating = {key: one for key, one in self._totals.items() if one.generated_tokens}
        yield _counter(generating, "prompt_tokens", "Tokens read by tasks that generate.")
        yield _counter(generating, "generated_tokens", "Tokens generated.")
        yield _labels(self._totals)
        yield _latency(self._totals)
        yield _batches(self._totals)
        yield from _gauge_families(self._gauges)


def _requests(totals: Totals) -> Metric:
    family = CounterMetricFamily(
        "runport_requests", "Answered requests by HTTP status.", labels=(*_VERSION, "status")
    )
    for key, aggregate in totals.items():
        for status, count in sorted(aggregate.statuses.items()):
            family.add_metric((*key_labels(key), str(status)), count)
    return family


def _counter(totals: Totals, attribute: str, documentation: str) -> Metric:
    family = CounterMetricFamily(f"runport_{attribute}", documentation, labels=_VERSION)
    for key, aggregate in totals.items():
        family.add_metric(key_labels(key), getattr(aggregate, attribute))
    return family


def _labels(totals: Totals) -> Metric:
    family = CounterMetricFamily(
        "runport_labels", "Predicted items by top label.", labels=(*_VERSION, "label")
    )
    for key, aggregate in totals.items():
        for label, count in sorted(aggregate.labels.items()):
            family.add_metric((*key_labels(key), label), count)
    return family


def _latency(totals: Totals) -> Metric:
    family = HistogramMetricFamily(
        "runport_latency_seconds", "Time per request and stage.", labels=(*_VERSION, "stage")
    )
    for key, aggregate in totals.items():
        for stage, histogram in aggregate.stages.items():
            family.add_metric(
                (*key_labels(key), stage), _latency_buckets(histogram), histogram.total_ms / 1e3
            )
    return family


def _latency_buckets(histogram: Histogram) -> list[tuple[str, float]]:
    bounds = [
        (str(float(f"{bound_ms / 1e3:.4g}")), float(count))
        for bound_ms, count in histogram.cumulative(_BUCKET_STEP)
    ]
    return [*bounds, ("+Inf", float(histogram.count))]


def _batches(totals: Totals) -> Metric:
    family = HistogramMetricFamily(
        "runport_batch_size", "Items in an engine batch.", labels=_VERSION
    )
    for key, aggregate in totals.items():
        sizes = aggregate.batch_sizes
        buckets = [
            (str(float(bound)), float(sum(n for size, n in sizes.items() if size <= bound)))
            for bound in _BATCH_BOUNDS
        ]
        buckets.append(("+Inf", float(sum(sizes.values()))))
        family.add_metric(key_labels(key), buckets, sum(size * n for size, n in sizes.items()))
    return family


def _gauge_families(gauges: Iterable[GaugeSample]) -> Iterable[Metric]:
    families: dict[str, GaugeMetricFamily] = {}
    for gauge in gauges:
        family = families.get(gauge.name)
        if family is None:
            family = families[gauge.name] = GaugeMetricFamily(
                f"runport_{gauge.name}", gauge.help, labels=tuple(gauge.labels)
            )
        family.add_metric(tuple(gauge.labels.values()), gauge.value)
    return families.values()


def key_labels(key: VersionKey) -> tuple[str, str, str]:
    """Return the label values of a version, the digest shortened to 12 characters."""
    return key.deployment, key.pinned_name, key.digest[:12]
