"""From figures to a choice."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import TuningLayout
from serving.tune.agreement import Agreement
from serving.tune.choose import Rules, choose, explain, noise, why_not
from serving.tune.contenders import Contender, candidate_names, layouts
from serving.tune.examine import Examination
from tests.serving.tune.rows import LAYOUT, row

RULES = Rules(budget=0.005, objective="throughput", named=())
EXACTNESS = {name: number for number, name in enumerate(candidate_names())}


def contender(name: str, rows: int = 16) -> Contender:
    engine, precision = name.split("/")
    layout = TuningLayout(1, 2, rows)
    return Contender(engine, precision, Path(), "text-classification", "", True, 0, layout)


def examination(off: float = 0.0, *, invariant: bool = True) -> Examination:
    return Examination(Agreement(off, off, 256), Agreement(0.0, 0.0, 64), invariant, 10.0)


def test_the_fastest_wins() -> None:
    rows = [row(), row("openvino/fp32", 1.4), row("openvino/bf16", 2.6, disagreement=0.004)]
    assert choose(rows, EXACTNESS, RULES) == 2
    assert "highest throughput" in explain(rows, 2, RULES)


def test_a_tie_within_noise_goes_to_the_more_exact() -> None:
    rows = [row(), row("openvino/int8", 2.03, disagreement=0.004), row("openvino/fp32", 1.99)]
    noisy = row("openvino/int8", 2.03, speed_low=1.9, speed_high=2.1, disagreement=0.004)
    assert choose([rows[0], noisy, rows[2]], EXACTNESS, RULES) == 2
    assert "more exact" in explain([rows[0], noisy, rows[2]], 2, RULES)
    assert choose(rows, EXACTNESS, RULES) == 1


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=8), st.floats(0, 2))
def test_the_choice_is_never_far_from_the_best(speeds: list[float], spread: float) -> None:
    names = candidate_names()
    rows = [
        row(
            names[at % len(names)],
            speed,
            speed_low=max(0.01, speed - spread),
            speed_high=speed + spread,
        )
        for at, speed in enumerate(speeds)
    ]
    won = rows[choose(rows, EXACTNESS, RULES)]
    assert won.speed is not None
    assert won.speed >= 0.95 * max(speeds)
    assert all(0 < noise(one) < 0.05 for one in rows)


def test_what_is_not_eligible_never_wins() -> None:
    rows = [row(), row("onnx/int8-dynamic", 4.0, eligible=False)]
    assert choose(rows, EXACTNESS, RULES) == 0


def test_other_objectives() -> None:
    rows = [
        row(growth_bytes=100),
        row("openvino/fp32", 1.5, latency_ratio=2.0, growth_bytes=300),
        row("torch/fp32", 0.5, latency_ratio=0.5, growth_bytes=200),
    ]
    latency, memory = (Rules(0.005, objective, ()) for objective in ("latency", "memory"))
    assert choose(rows, EXACTNESS, latency) == 2
    assert "latency" in explain(rows, 2, latency)
    assert choose(rows, EXACTNESS, memory) == 0
    assert "memory" in explain(rows, 0, memory)


def test_why_something_may_not_be_chosen() -> None:
    assert why_not(contender("onnx/fp32"), examination(), RULES) == ""
    assert "0.60%" in why_not(contender("openvino/bf16"), examination(0.006), RULES)
    depends = examination(invariant=False)
    assert "batch-mates" in why_not(contender("openvino/bf16"), depends, RULES)
    # Alone it has no batch-mates.
    assert why_not(contender("openvino/bf16", rows=1), depends, RULES) == ""


def test_dynamic_int8_has_to_be_named() -> None:
    alone = contender("onnx/int8-dynamic", rows=1)
    depends = examination(invariant=False)
    assert "named" in why_not(alone, depends, RULES)
    named = Rules(0.005, "throughput", ("onnx/int8-dynamic",))
    assert why_not(alone, depends, named) == ""
    assert why_not(contender("onnx/int8-dynamic"), depends, named) != ""


@pytest.mark.parametrize("cores", [1, 2, 3, 4, 6, 16, 96])
def test_layouts_use_all_cores_once(cores: int) -> None:
    ways = layouts(cores)
    assert all(one.engine_threads * one.slots == cores for one in ways)
    assert ways[0].engine_threads == 1
    assert ways[-1].engine_threads == cores
    assert 1 <= len(ways) <= 4
    assert LAYOUT.words == "1x2"
    assert contender("onnx/fp32").alone().layout.words == "1x2 alone"
