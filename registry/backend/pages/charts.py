"""Line charts as inline SVG, drawn on the server; they need no script. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from registry.backend.pages.markup import Markup, element

Point = tuple[float, float]

MAX_POINTS = 400
_WIDTH = 360
_HEIGHT = 170
_LEFT = 46
_RIGHT = 10
_TOP = 8
_BOTTOM = 24
_TICKS = 4
_DOTS_UP_TO = 40
_LARGEST = 1e290
_NEGLIGIBLE = 1e-12


def line_chart(points: Sequence[Point], *, label: str, x_label: str) -> Markup:
    """Return a chart of finite points in the order given; each dot says its values.

    Args:
        points: (x, y); the x values do not fall.
        label: what is drawn, for those who cannot see it.
        x_label: name of the x axis.
    """
    shown = thinned(points, MAX_POINTS)
    xs = _range([x for x, _ in shown])
    ticks = _ticks(*_range([y for _, y in shown]))
    ys = (ticks[0], ticks[-1])
    places = [(_x(_clipped(x), xs), _y(_clipped(y), ys)) for x, y in shown]
    return element(
        "svg",
        [_y_tick(value, ys) for value in ticks],
        _x_axis(xs, x_label),
        element(
            "polyline", class_="series", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        ),
        _dots(shown, places, x_label) if len(shown) <= _DOTS_UP_TO else None,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_label=f"{label} over {x_label}: {len(points)} points, last {number(points[-1][1])}",
    )


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """Return at most `most` points that keep every stretch's lowest and highest value."""
    if len(points) <= most:
        return list(points)
    stretches = max(1, most // 2 - 1)
    inner = points[1:-1]
    kept: list[Point] = [points[0]]
    for index in range(stretches):
        begin, end = (len(inner) * n // stretches for n in (index, index + 1))
        stretch = range(begin, end)
        if stretch:
            ends = {
                min(stretch, key=lambda i: inner[i][1]),
                max(stretch, key=lambda i: inner[i][1]),
            }
            kept.extend(inner[i] for i in sorted(ends))
    return [*kept, points[-1]]


def number(value: float) -> str:
    """Return a number as people read it: four digits, no needless zeros."""
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    return f"{value:.4g}"


def _dots(shown: Sequence[Point], places: Sequence[Point], x_label: str) -> list[Markup]:
    return [
        element(
            "circle",
            element("title", f"{x_label} {number(x)}: {number(y)}"),
            class_="dot",
            cx=f"{cx:.1f}",
            cy=f"{cy:.1f}",
            r="2.6",
        )
        for (x, y), (cx, cy) in zip(shown, places, strict=True)
    ]


def _clipped(value: float) -> float:
    """Keep away from the ends of what floats can hold, where differences overflow."""
    return max(-_LARGEST, min(_LARGEST, value))


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = _clipped(min(values)), _clipped(max(values))
    size = max(abs(low), abs(high))
    if high - low <= size * _NEGLIGIBLE or high - low < 1 / _LARGEST:
        margin = size * 0.1 if size > 1 / _LARGEST else 1.0
        return low - margin, high + margin
    return low, high


def _step(low: float, high: float) -> float:
    """Return a distance between ticks out of 1, 2 and 5 times a power of ten."""
    raw = (high - low) / _TICKS
    magnitude = 10.0 ** math.floor(math.log10(raw))
    return next((f * magnitude for f in (1, 2, 5) if raw <= f * magnitude), 10 * magnitude)


def _ticks(low: float, high: float) -> list[float]:
    """Return round values that enclose the range."""
    step = _step(low, high)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [index * step for index in range(first, max(last, first + 1) + 1)]


def _x(value: float, x_range: tuple[float, float]) -> float:
    low, high = x_range
    return _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)


def _y(value: float, y_range: tuple[float, float]) -> float:
    low, high = y_range
    return _TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)


def _y_tick(value: float, y_range: tuple[float, float]) -> list[Markup]:
    y = f"{_y(value, y_range):.1f}"
    return [
        element("line", class_="grid", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y),
        element(
            "text", number(value), class_="tick", x=_LEFT - 6, y=y, dy="0.32em", text_anchor="end"
        ),
    ]


def _x_axis(xs: tuple[float, float], name: str) -> list[Markup]:
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    texts = (
        (_LEFT, "start", number(xs[0])),
        (middle, "middle", name),
        (_WIDTH - _RIGHT, "end", number(xs[1])),
    )
    return [
        element("text", text, class_="tick", x=x, y=_HEIGHT - 6, text_anchor=anchor)
        for x, anchor, text in texts
    ]
