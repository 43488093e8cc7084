from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.telemetry import metrics, prometheus
from serving.telemetry.records import STAGES, GaugeSample, RequestRecord
from serving.telemetry.windows import (
    MAX_LABELS,
    OTHER_LABEL,
    Aggregate,
    VersionKey,
    WindowSet,
    next_boundary_s,
)

KEY = VersionKey("bert", "acme/nlp/run-bert:v1", "ab" * 32)

records = st.builds(
    RequestRecord,
    st.just(KEY.deployment),
    st.just(KEY.pinned_name),
    st.just(KEY.digest),
    st.booleans(),
    st.sampled_from([200, 422, 503]),
    st.integers(0, 8),
    st.lists(st.integers(1, 32), max_size=3).map(tuple),
    st.dictionaries(st.sampled_from(STAGES), st.floats(0, 1e5)),
    st.lists(st.sampled_from(["pos", "neg"]), max_size=3).map(tuple),
    st.integers(0, 9),
    st.integers(0, 9),
)


def record(**changes: object) -> RequestRecord:
    values: dict[str, object] = {
        "deployment": KEY.deployment,
        "pinned_name": KEY.pinned_name,
        "digest": KEY.digest,
        "ok": True,
        "status": 200,
        "items": 1,
    }
    return RequestRecord(**{**values, **changes})  # type: ignore[arg-type]


def facts(aggregate: Aggregate) -> dict[str, object]:
    return {
        "counts": (aggregate.requests, aggregate.errors, aggregate.items),
        "tokens": (aggregate.prompt_tokens, aggregate.generated_tokens),
        "statuses": aggregate.statuses,
        "batches": aggregate.batch_sizes,
        "labels": aggregate.labels,
        "buckets": {stage: h.buckets for stage, h in aggregate.stages.items()},
        "walls": (aggregate.first_wall_s, aggregate.last_wall_s),
    }


@given(st.lists(records), st.lists(records))
def test_merged_aggregates_equal_one_that_saw_everything(
    left: list[RequestRecord], right: list[RequestRecord]
) -> None:
    parts = [Aggregate(), Aggregate()]
    whole = Aggregate()
    for wall_s, (part, one) in enumerate([(0, r) for r in left] + [(1, r) for r in right], 1):
        parts[part].add(one, float(wall_s))
        whole.add(one, float(wall_s))
    parts[0].merge(parts[1])
    assert facts(parts[0]) == facts(whole)


@given(st.lists(st.lists(records, max_size=4), max_size=5))
def test_windows_partition_the_requests(rounds: list[list[RequestRecord]]) -> None:
    windows = WindowSet()
    closed = []
    for requests in rounds:
        for one in requests:
            windows.record(one)
        closed.extend(windows.close())
    assert [window.index for window in closed] == list(range(1, len(closed) + 1))
    assert sum(w.aggregate.requests for w in closed) == sum(map(len, rounds))
    totals = windows.totals()
    assert totals.get(KEY, Aggregate()).requests == sum(map(len, rounds))


def test_an_idle_version_has_no_window() -> None:
    windows = WindowSet()
    windows.record(record())
    assert len(windows.close()) == 1
    assert windows.close() == []


def test_a_window_knows_its_length_and_wall_times() -> None:
    clock = iter([100.0, 107.5])
    wall = iter([5.0, 6.0])
    windows = WindowSet(wall_clock=lambda: next(wall), clock=lambda: next(clock))
    windows.record(record())
    windows.record(record())
    (window,) = windows.close()
    assert window.seconds == 7.5
    assert (window.aggregate.first_wall_s, window.aggregate.last_wall_s) == (5.0, 6.0)


def test_distinct_labels_are_bounded() -> None:
    aggregate = Aggregate()
    for number in range(3 * MAX_LABELS):
        aggregate.add(record(labels=(f"label-{number}",)), 1.0)
    assert len(aggregate.labels) == MAX_LABELS + 1
    assert aggregate.labels[OTHER_LABEL] == 2 * MAX_LABELS


def test_recording_from_many_threads_loses_nothing() -> None:
    windows = WindowSet()
    threads = [
        threading.Thread(target=lambda: [windows.record(record()) for _ in range(500)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    counted = 0
    while any(thread.is_alive() for thread in threads):
        counted += sum(window.aggregate.requests for window in windows.close())
    counted += sum(window.aggregate.requests for window in windows.close())
    assert counted == 2000


@given(st.floats(0, 1e7), st.floats(0.1, 100))
def test_boundaries_lie_ahead_and_not_further_than_a_window(now_s: float, window_s: float) -> None:
    boundary_s = next_boundary_s(now_s, window_s)
    assert boundary_s >= now_s
    assert boundary_s <= now_s + window_s * (1 + 1e-6)


def test_metric_names_are_stable() -> None:
    windows = WindowSet(clock=iter([0.0, 10.0]).__next__)
    stages = dict.fromkeys(STAGES, 5.0)
    windows.record(record(items=2, batch_sizes=(2,), stages_ms=stages, labels=("pos", "a.b/c")))
    windows.record(record(ok=False, status=503, items=1))
    (window,) = windows.close()
    row = metrics.window_metrics(window, dropped=3)
    latencies = {
        f"latency/{stage}/{name}_ms"
        for stage in STAGES
        for name in ("p50", "p90", "p95", "p99", "mean", "max")
    }
    assert set(row) == latencies | {
        "requests",
        "errors",
        "items",
        "requests_per_s",
        "error_rate",
        "status/200",
        "status/503",
        "batch/count",
        "batch/size_mean",
        "batch/size_max",
        "labels/pos",
        "labels/a_b_c",
        "window/seconds",
        "window/first_unix_s",
        "window/last_unix_s",
        "window/dropped",
    }
    assert row["requests"] == 2
    assert row["error_rate"] == 0.5
    assert row["requests_per_s"] == 0.2
    assert row["latency/total/p95_ms"] == 5.0
    totals = metrics.running_totals(window)
    assert totals["total/requests"] == 2
    assert totals["total/windows"] == 1


def test_tokens_are_shown_of_tasks_that_generate() -> None:
    windows = WindowSet(clock=iter([0.0, 10.0]).__next__)
    windows.record(record(prompt_tokens=5, generated_tokens=20, stages_ms={"first_token": 3.0}))
    windows.record(record(generated_tokens=10, ok=False, status=499))
    windows.record(
        RequestRecord(
            deployment="other",
            pinned_name=KEY.pinned_name,
            digest="c",
            ok=True,
            status=200,
            items=1,
        )
    )
    generating, other = windows.close()
    row = metrics.window_metrics(generating, dropped=0)
    assert row["tokens/prompt"] == 5
    assert row["tokens/generated"] == 30
    assert row["tokens/generated_per_s"] == 3.0
    assert row["latency/first_token/p50_ms"] == 3.0
    assert metrics.running_totals(generating)["total/tokens/generated"] == 30
    assert not [name for name in metrics.window_metrics(other, dropped=0) if "token" in name]
    text = prometheus.render(windows.totals(), ()).decode()
    counted = [line for line in text.splitlines() if line.startswith("runport_generated_tokens")]
    assert [line.rpartition(" ")[2] for line in counted] == ["30.0"]
    assert 'deployment="bert"' in counted[0]


def test_totals_run_over_windows() -> None:
    windows = WindowSet()
    for expected in (1, 2, 3):
        windows.record(record())
        (window,) = windows.close()
        assert metrics.running_totals(window)["total/requests"] == expected
        assert window.aggregate.requests == 1


def test_prometheus_text_is_exact_and_readable_by_prometheus() -> None:
    from prometheus_client.parser import text_string_to_metric_families

    windows = WindowSet()
    windows.record(record(items=2, batch_sizes=(2,), stages_ms={"total": 12.0}, labels=("pos",)))
    windows.close()
    windows.record(record(ok=False, status=503, labels=('"quoted"\n',)))
    text = prometheus.render(
        windows.totals(), [GaugeSample("queue_depth", "Waiting.", 4, {"deployment": "bert"})]
    ).decode()
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    version = {"deployment": "bert", "version": KEY.pinned_name, "digest": "ab" * 6}

    def value(name: str, **labels: str) -> float:
        return samples[(name, *sorted({**version, **labels}.items()))]

    assert value("runport_requests_total", status="200") == 1
    assert value("runport_requests_total", status="503") == 1
    assert value("runport_errors_total") == 1
    assert value("runport_items_total") == 3
    assert value("runport_labels_total", label="pos") == 1
    assert value("runport_latency_seconds_count", stage="total") == 1
    assert value("runport_latency_seconds_sum", stage="total") == pytest.approx(0.012)
    assert value("runport_latency_seconds_bucket", stage="total", le="0.01") == 0
    assert value("runport_latency_seconds_bucket", stage="total", le="0.01585") == 1
    assert value("runport_batch_size_bucket", le="2.0") == 1
    assert samples[("runport_queue_depth", ("deployment", "bert"))] == 4
