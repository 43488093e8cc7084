from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.telemetry.histogram import (
    HIGHEST_MS,
    LOWEST_MS,
    RELATIVE_ERROR,
    Histogram,
    bucket_index,
    upper_bound_ms,
)

in_range = st.floats(LOWEST_MS, HIGHEST_MS)
any_duration = st.floats(0, 1e9)


def histogram_of(values: list[float]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram


def nearest_rank(values: list[float], quantile: float) -> float:
    return sorted(values)[max(1, math.ceil(quantile * len(values))) - 1]


def test_the_documented_error_is_below_five_percent() -> None:
    assert RELATIVE_ERROR < 0.05


@given(st.lists(in_range, min_size=1), st.sampled_from([0.01, 0.5, 0.9, 0.95, 0.99, 1.0]))
def test_quantiles_keep_the_documented_error(values: list[float], quantile: float) -> None:
    exact = nearest_rank(values, quantile)
    estimate = histogram_of(values).quantile_ms(quantile)
    assert estimate == pytest.approx(exact, rel=RELATIVE_ERROR + 1e-9)


@given(st.lists(any_duration, min_size=1), st.floats(0.001, 1.0))
def test_quantiles_stay_within_what_was_seen(values: list[float], quantile: float) -> None:
    assert min(values) <= histogram_of(values).quantile_ms(quantile) <= max(values)


@given(st.lists(any_duration), st.lists(any_duration))
def test_merging_is_adding_all_values(left: list[float], right: list[float]) -> None:
    merged = histogram_of(left)
    merged.merge(histogram_of(right))
    whole = histogram_of(left + right)
    assert merged.buckets == whole.buckets
    assert merged.count == whole.count
    assert (merged.minimum_ms, merged.maximum_ms) == (whole.minimum_ms, whole.maximum_ms)
    assert merged.total_ms == pytest.approx(whole.total_ms)


@given(in_range)
def test_a_value_lies_in_its_bucket(value: float) -> None:
    index = bucket_index(value)
    assert value <= upper_bound_ms(index) * (1 + 1e-12)
    assert index == 0 or value > upper_bound_ms(index - 1) * (1 - 1e-12)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_values_that_are_no_durations_are_left_out(value: float) -> None:
    assert histogram_of([value]).count == 0


def test_an_empty_histogram_says_zero() -> None:
    histogram = Histogram()
    assert histogram.quantile_ms(0.5) == 0.0
    assert histogram.mean_ms == 0.0


def test_cumulative_counts_end_with_everything_in_range() -> None:
    counts = histogram_of([0.001, 1.0, 10.0, 100.0]).cumulative(5)
    assert [count for _, count in counts] == sorted(count for _, count in counts)
    assert counts[-1] == (HIGHEST_MS, 4)
    assert dict(counts)[10.0] == 3
