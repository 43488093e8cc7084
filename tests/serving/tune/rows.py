"""Measurements for tests: what `registry tune` would have stored."""

from __future__ import annotations

from typing import Any

from registry import Tuning, TuningLayout, TuningRow, machine_facts, tuning_tools

LAYOUT = TuningLayout(engine_threads=1, slots=2, max_batch_rows=16)


def row(name: str = "onnx/fp32", speed: float = 1.0, **facts: Any) -> TuningRow:
    """Return a row that may be chosen."""
    engine, precision = name.split("/")
    values: dict[str, Any] = {
        "layout": LAYOUT,
        "speed": speed,
        "speed_low": speed,
        "speed_high": speed,
        "latency_ratio": 1 / speed,
        "growth_bytes": int(1e8 / speed),
        "disagreement": 0.0,
        "batch_invariant": True,
        "eligible": True,
    }
    return TuningRow(engine=engine, precision=precision, **{**values, **facts})


def tuning(digest: str, rows: tuple[TuningRow, ...], chosen: int = 0, **facts: Any) -> Tuning:
    """Return a measurement of here and now."""
    values: dict[str, Any] = {
        "digest": digest,
        "task": "text-classification",
        "machine": machine_facts(),
        "tools": tuning_tools(torch=True),
        "objective": "throughput",
        "budget": 0.005,
        "named": (),
        "inputs": 256,
        "inputs_from": "drawn",
        "lengths": {"p50": 35, "p95": 200, "max": 512},
        "reference": "onnx/fp32 1x2",
        "rounds": 4,
        "load_before": 0.0,
        "load_after": 0.0,
        "seconds": 1.0,
        "created_at_s": 1e9,
        "rows": rows,
        "chosen": chosen,
        "why": "a test",
    }
    return Tuning(**{**values, **facts})
