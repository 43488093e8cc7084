"""What of a run's history can be drawn: numbers over steps, one series a key. Pure."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from registry.backend.pages.charts import Point
from registry.backend.runs.documents import leaf_items, parse_line

STEP = "_step"
_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@dataclass(slots=True)
class Series:
    """One key's values.

    Attributes:
        key: dotted name, as logged.
        x_key: the key on the x axis: `_step`, or what `define_metric` asked for.
        points: finite (x, y) pairs, by x.
        skipped: values that cannot be drawn (NaN, infinite).
    """

    key: str
    x_key: str
    points: list[Point] = field(default_factory=list)
    skipped: int = 0


def numeric_series(lines: Iterable[str], config: Mapping[str, Any]) -> list[Series]:
    """Return a series for each numeric key of history `lines`, by key, axes left out.

    `config` is the run's stored configuration, which says what `define_metric` asked for.
    """
    found: dict[str, Series] = {}
    definitions = _step_metrics(config)
    for line in lines:
        row = dict(leaf_items(parse_line(line) or {}))
        for key, value in row.items():
            y = _number(value)
            if y is None or key.startswith("_"):
                continue
            series = found.get(key)
            if series is None:
                series = found[key] = Series(key, _x_key(key, definitions))
            _add(series, row, y)
    axes = {series.x_key for series in found.values()}
    return [_sorted(found[key]) for key in sorted(found) if key not in axes]


def grouped(series: Sequence[Series]) -> dict[str, list[Series]]:
    """Return series by the part of their key before the first slash ("" without one)."""
    groups: dict[str, list[Series]] = {}
    for one in series:
        head, slash, _ = one.key.partition("/")
        groups.setdefault(head if slash else "", []).append(one)
    return groups


def _add(series: Series, row: Mapping[str, Any], y: float) -> None:
    x = _number(row.get(series.x_key))
    if x is None and series.x_key != STEP:
        # The first rows may come before the metric that they are to be drawn over.
        return
    if x is None or not (math.isfinite(x) and math.isfinite(y)):
        series.skipped += 1
        return
    series.points.append((x, y))


def _sorted(series: Series) -> Series:
    series.points.sort(key=lambda point: point[0])
    return series


def _number(value: object) -> float | None:
    if isinstance(value, str):
        return _NON_FINITE.get(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _step_metrics(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (name or pattern, x key) of each definition, exact names first.

    `_wandb.m` lists definitions with numbered fields: 1 name, 2 pattern, 5 position of the
    step metric in this list, counted from one.
    """
    entry = config.get("_wandb")
    inner = entry.get("value", entry) if isinstance(entry, Mapping) else {}
    metrics = inner.get("m") if isinstance(inner, Mapping) else None
    rows = [row for row in metrics if isinstance(row, Mapping)] if isinstance(metrics, list) else []
    found: list[tuple[str, str]] = []
    for row in rows:
        name, place = row.get("1") or row.get("2"), row.get("5")
        if isinstance(name, str) and isinstance(place, int) and 0 < place <= len(rows):
            step_key = rows[place - 1].get("1")
            if isinstance(step_key, str):
                found.append((name.replace("\\.", "."), step_key.replace("\\.", ".")))
    return sorted(found, key=lambda item: "*" in item[0])


def _x_key(key: str, definitions: Sequence[tuple[str, str]]) -> str:
    for pattern, step_key in definitions:
        if key != step_key and fnmatch.fnmatchcase(key, pattern):
            return step_key
    return STEP
