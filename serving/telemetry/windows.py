"""Aggregates per (deployment, pinned version), cut into windows of time.

Owns counting; does not know what is done with a closed window. Recording takes
a few microseconds, may be done from any thread, and holds a lock for as long.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import msgspec

from serving.telemetry.histogram import Histogram
from serving.telemetry.records import STAGES, RequestRecord

QUANTILES = (0.5, 0.9, 0.95, 0.99)
MAX_LABELS = 64
"""Distinct labels counted by name in a version's lifetime; the rest is `other`."""

_K = TypeVar("_K")

OTHER_LABEL = "other"
_MAX_STATUSES = 64
_LEAST_WINDOW_S = 1e-3


class VersionKey(NamedTuple):
    """What a window is about."""

    deployment: str
    pinned_name: str
    digest: str


class Aggregate:
    """Counts of some requests to one version; mergeable.

    Attributes:
        requests, errors, items: how many.
        statuses: HTTP status -> requests.
        stages: stage -> latency histogram.
        prompt_tokens, generated_tokens: of tasks that generate.
        batch_sizes: engine batch size -> batches.
        labels: label -> items, at most `MAX_LABELS` and `other`.
        first_wall_s, last_wall_s: Unix time of the first and last request; 0 when empty.
    """

    __slots__ = (
        "batch_sizes",
        "errors",
        "first_wall_s",
        "generated_tokens",
        "items",
        "labels",
        "last_wall_s",
        "prompt_tokens",
        "requests",
        "stages",
        "statuses",
    )

    def __init__(self) -> None:
        self.requests = 0
        self.errors = 0
        self.items = 0
        self.prompt_tokens = 0
        self.generated_tokens = 0
        self.statuses: dict[int, int] = {}
        self.stages: dict[str, Histogram] = {}
        self.batch_sizes: dict[int, int] = {}
        self.labels: dict[str, int] = {}
        self.first_wall_s = 0.0
        self.last_wall_s = 0.0

    def add(self, record: RequestRecord, wall_s: float) -> None:
        """Count one request that was answered at Unix time `wall_s`."""
        self.requests += 1
        self.errors += not record.ok
        self.items += record.items
        self.prompt_tokens += record.prompt_tokens
        self.generated_tokens += record.generated_tokens
        _count(self.statuses, record.status, 1, _MAX_STATUSES, 0)
        for stage, value_ms in record.stages_ms.items():
            if stage in STAGES:
                self._stage(stage).add(value_ms)
        for size in record.batch_sizes:
            self.batch_sizes[size] = self.batch_sizes.get(size, 0) + 1
        for label in record.labels:
            _count(self.labels, label, 1, MAX_LABELS, OTHER_LABEL)
        self._seen(wall_s, wall_s)

    def merge(self, other: Aggregate) -> None:
        """Add another aggregate's counts."""
        self.requests += other.requests
        self.errors += other.errors
        self.items += other.items
        self.prompt_tokens += other.prompt_tokens
        self.generated_tokens += other.generated_tokens
        for status, count in other.statuses.items():
            _count(self.statuses, status, count, _MAX_STATUSES, 0)
        for stage, histogram in other.stages.items():
            self._stage(stage).merge(histogram)
        for size, count in other.batch_sizes.items():
            self.batch_sizes[size] = self.batch_sizes.get(size, 0) + count
        for label, count in other.labels.items():
            _count(self.labels, label, count, MAX_LABELS, OTHER_LABEL)
        if other.requests:
            self._seen(other.first_wall_s, other.last_wall_s)

    def _stage(self, stage: str) -> Histogram:
        histogram = self.stages.get(stage)
        if histogram is None:
            histogram = self.stages[stage] = Histogram()
        return histogram

    def _seen(self, first_wall_s: float, last_wall_s: float) -> None:
        if self.first_wall_s == 0.0 or first_wall_s < self.first_wall_s:
            self.first_wall_s = first_wall_s
        self.last_wall_s = max(self.last_wall_s, last_wall_s)


class Window(msgspec.Struct, frozen=True):
    """A closed window of one version, the aggregate being final.

    Attributes:
        key: the version.
        index: 1 for the version's first window in this process, then 2, …
        seconds: its real length; a version's last window is cut short.
        aggregate: what happened in it.
        running: what happened since the process began, this window included; a live
            object of the `WindowSet` that must be read before the next `close`.
    """

    key: VersionKey
    index: int
    seconds: float
    aggregate: Aggregate
    running: Aggregate


class WindowSet:
    """The open windows of a process and the running totals.

    `wall_clock` gives Unix seconds, used as a label only: nothing is decided by it.
    `clock` gives monotonic seconds.
    """

    def __init__(
        self,
        wall_clock: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall_clock = wall_clock
        self._clock = clock
        self._began_s = clock()
        self._lock = threading.Lock()
        self._open: dict[VersionKey, Aggregate] = {}
        self._running: dict[VersionKey, Aggregate] = {}
        self._indices: dict[VersionKey, int] = {}

    def record(self, record: RequestRecord) -> None:
        """Count one request in its version's open window."""
        key = VersionKey(record.deployment, record.pinned_name, record.digest)
        wall_s = self._wall_clock()
        with self._lock:
            aggregate = self._open.get(key)
            if aggregate is None:
                aggregate = self._open[key] = Aggregate()
            aggregate.add(record, wall_s)

    def close(self) -> list[Window]:
        """Close the open windows and return those with requests; new ones begin."""
        with self._lock:
            opened, self._open = self._open, {}
            began_s, self._began_s = self._began_s, self._clock()
            seconds = max(_LEAST_WINDOW_S, self._began_s - began_s)
            return [self._closed(key, aggregate, seconds) for key, aggregate in opened.items()]

    def _closed(self, key: VersionKey, aggregate: Aggregate, seconds: float) -> Window:
        running = self._running.setdefault(key, Aggregate())
        running.merge(aggregate)
        index = self._indices.get(key, 0) + 1
        self._indices[key] = index
        return Window(key, index, seconds, aggregate, running)

    def totals(self) -> dict[VersionKey, Aggregate]:
        """Return copies of the running totals, open windows included."""
        with self._lock:
            result: dict[VersionKey, Aggregate] = {}
            for source in (self._running, self._open):
                for key, aggregate in source.items():
                    result.setdefault(key, Aggregate()).merge(aggregate)
            return result


def next_boundary_s(now_s: float, window_s: float) -> float:
    """Return the first multiple of `window_s` after `now_s` on the monotonic clock."""
    return (now_s // window_s + 1) * window_s


def _count(counts: dict[_K, int], key: _K, count: int, limit: int, other: _K) -> None:
    if key not in counts and len(counts) >= limit:
        key = other
    counts[key] = counts.get(key, 0) + count
