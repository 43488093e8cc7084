"""A mergeable latency histogram with log-spaced buckets and a bounded error.

Buckets are fixed (25 per decade from 0.01 ms to 10⁶ ms), so that histograms of
different windows and processes add up. A quantile is the geometric middle of
the bucket that holds the nearest-rank value: inside the range it is off by at
most `RELATIVE_ERROR` (4.8 %), and it never leaves [minimum, maximum] seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

BUCKETS_PER_DECADE = 25
LOWEST_MS = 0.01
HIGHEST_MS = 1e6
BUCKET_COUNT = 8 * BUCKETS_PER_DECADE
"""Index 0 holds values ≤ `LOWEST_MS`, index `BUCKET_COUNT` + 1 those above `HIGHEST_MS`."""

RELATIVE_ERROR = 10 ** (0.5 / BUCKETS_PER_DECADE) - 1


def bucket_index(value_ms: float) -> int:
    """Return the bucket of a value; bucket `i` is (upper_bound(i-1), upper_bound(i)]."""
    if not value_ms > LOWEST_MS:
        return 0
    if value_ms > HIGHEST_MS:
        return BUCKET_COUNT + 1
    return max(1, math.ceil(math.log10(value_ms / LOWEST_MS) * BUCKETS_PER_DECADE))


def upper_bound_ms(index: int) -> float:
    """Return the inclusive upper bound of a bucket in milliseconds."""
    return float(10 ** (index / BUCKETS_PER_DECADE - 2))


class Histogram:
    """Counts of values in milliseconds; empty when made.

    Attributes:
        count, total_ms, minimum_ms, maximum_ms: exact; minimum and maximum are 0 when empty.
        buckets: bucket index -> count, only those above zero.
    """

    __slots__ = ("buckets", "count", "maximum_ms", "minimum_ms", "total_ms")

    def __init__(self) -> None:
        self.count = 0
        self.total_ms = 0.0
        self.minimum_ms = 0.0
        self.maximum_ms = 0.0
        self.buckets: dict[int, int] = {}

    def add(self, value_ms: float) -> None:
        """Count one value; NaN, infinite and negative values are left out."""
        if not 0.0 <= value_ms < math.inf:
            return
        index = bucket_index(value_ms)
        self.buckets[index] = self.buckets.get(index, 0) + 1
        self._extend(1, value_ms, value_ms, value_ms)

    def merge(self, other: Histogram) -> None:
        """Add another histogram's counts; the same as having added its values."""
        for index, count in other.buckets.items():
            self.buckets[index] = self.buckets.get(index, 0) + count
        if other.count:
            self._extend(other.count, other.total_ms, other.minimum_ms, other.maximum_ms)

    def _extend(self, count: int, total_ms: float, minimum_ms: float, maximum_ms: float) -> None:
        self.minimum_ms = min(self.minimum_ms, minimum_ms) if self.count else minimum_ms
        self.maximum_ms = max(self.maximum_ms, maximum_ms) if self.count else maximum_ms
        self.count += count
        self.total_ms += total_ms

    @property
    def mean_ms(self) -> float:
        """The exact mean; 0 when empty."""
        return self.total_ms / self.count if self.count else 0.0

    def quantile_ms(self, quantile: float) -> float:
        """Return the nearest-rank quantile in milliseconds; 0 when empty.

        `quantile` lies in (0, 1].
        """
        rank = max(1, math.ceil(quantile * self.count))
        seen = 0
        for index in sorted(self.buckets):
            seen += self.buckets[index]
            if seen >= rank:
                return min(max(self._middle_ms(index), self.minimum_ms), self.maximum_ms)
        return 0.0

    def _middle_ms(self, index: int) -> float:
        if index == 0:
            return self.minimum_ms
        if index > BUCKET_COUNT:
            return self.maximum_ms
        return math.sqrt(upper_bound_ms(index - 1) * upper_bound_ms(index))

    def quantiles_ms(self, quantiles: Iterable[float]) -> dict[str, float]:
        """Return `{"p50_ms": …}` for each of `quantiles`."""
        return {f"p{quantile * 100:g}_ms": self.quantile_ms(quantile) for quantile in quantiles}

    def cumulative(self, step: int) -> list[tuple[float, int]]:
        """Return (upper bound in ms, values at or below it) for each `step`-th bucket."""
        counts = []
        seen = 0
        for index in range(BUCKET_COUNT + 1):
            seen += self.buckets.get(index, 0)
            if index % step == 0:
                counts.append((upper_bound_ms(index), seen))
        return counts


def merged(histograms: Iterable[Mapping[str, Histogram]]) -> dict[str, Histogram]:
    """Merge stage -> histogram mappings into a new one."""
    result: dict[str, Histogram] = {}
    for stages in histograms:
        for stage, histogram in stages.items():
            result.setdefault(stage, Histogram()).merge(histogram)
    return result
