"""The parts that all pages share: frame, tables, badges, times and sizes. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from registry.backend.clock import parse_text
from registry.backend.pages.charts import number
from registry.backend.pages.markup import Child, Markup, document, element

STYLE_PATH = "/_runport/style.css"
MAX_VALUE_CHARACTERS = 2000

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_FOOT = (
    "Runport's embedded backend: one user, this machine only, for runs, artifacts and the"
    " registry. It is not a replacement for Weights & Biases."
)


def href(*segments: object) -> str:
    """Return the path of a page; each segment is quoted whole."""
    return "/" + "/".join(quote(str(segment), safe="") for segment in segments)


def link(text: object, *segments: object) -> Markup:
    """Return a link to a page."""
    return element("a", str(text), href=href(*segments))


def page(title: str, trail: Sequence[Markup], *content: Child) -> str:
    """Return a whole page with a trail of links at its top."""
    head = [
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", f"{title} · Runport"),
        element("link", rel="stylesheet", href=STYLE_PATH),
        # Keeps browsers from asking for /favicon.ico.
        element("link", rel="icon", href="data:,"),
    ]
    steps = [[element("span", "/", class_="sep"), step] for step in trail]
    brand = element("a", "Runport", href="/", class_="brand")
    body = element(
        "body",
        element("header", element("nav", brand, steps, aria_label="Trail"), class_="top"),
        element("main", content),
        element("footer", _FOOT),
    )
    return document(head, body)


def section(title: str, *content: Child) -> Markup:
    """Return a titled section."""
    return element("section", element("h2", title), content)


def card(*content: Child) -> Markup:
    """Return content on a plain card that scrolls sideways when it must."""
    return element("div", content, class_="card scroll")


def table(headings: Sequence[str], rows: Iterable[Sequence[Child]], *, empty: str) -> Markup:
    """Return a table on a card; a heading that begins with `#` is a column of numbers."""
    filled = list(rows)
    if not filled:
        return card(element("p", empty, class_="empty"))
    classes = ["num" if heading.startswith("#") else None for heading in headings]
    head = [
        element("th", heading.removeprefix("#"), class_=kind, scope="col")
        for heading, kind in zip(headings, classes, strict=True)
    ]
    body = [
        element("tr", [element("td", v, class_=kind) for v, kind in zip(row, classes, strict=True)])
        for row in filled
    ]
    return card(element("table", element("thead", element("tr", head)), element("tbody", body)))


def pairs(values: Mapping[str, Any], *, empty: str) -> Markup:
    """Return names and values as a table of two columns, sorted by name."""
    if not values:
        return card(element("p", empty, class_="empty"))
    rows = [
        element("tr", element("td", name, class_="key"), element("td", value_text(values[name])))
        for name in sorted(values)
    ]
    return card(element("table", element("tbody", rows)))


def value_text(value: object) -> Markup:
    """Return a JSON value as short text."""
    if isinstance(value, bool) or value is None:
        return element("code", json.dumps(value))
    if isinstance(value, int | float):
        return element("span", number(value))
    if isinstance(value, Mapping) and value.get("_type") == "histogram":
        return element("span", _histogram_text(value))
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    if len(text) > MAX_VALUE_CHARACTERS:
        text = f"{text[:MAX_VALUE_CHARACTERS]}… ({len(text):,} characters)"
    return element("span", text) if isinstance(value, str) else element("code", text)


def _histogram_text(histogram: Mapping[str, Any]) -> str:
    counts = [n for n in histogram.get("values") or () if isinstance(n, int | float)]
    edges = [n for n in histogram.get("bins") or () if isinstance(n, int | float)]
    span = f" from {number(edges[0])} to {number(edges[-1])}" if edges else ""
    return f"histogram: {number(sum(counts))} values{span}"


def badges(names: Iterable[str], kind: str = "") -> list[Markup]:
    """Return names as small labels."""
    return [element("span", name, class_=f"badge {kind}".strip()) for name in names]


def state_badge(state: str) -> Markup:
    """Return a run's state as a coloured label."""
    return element("span", state, class_=f"badge state {state}")


def time_text(text: str | None) -> Markup:
    """Return a stored time as a person reads it, in UTC."""
    if not text:
        return element("span", "—", class_="quiet")
    return element("time", f"{text[:10]} {text[11:16]}", datetime=text, title=f"{text} (UTC)")


def size_text(size_bytes: int | None) -> str:
    """Return a size with a binary unit."""
    if size_bytes is None:
        return "—"
    size = float(size_bytes)
    for unit in _UNITS:
        if size < 1024 or unit == _UNITS[-1]:
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def duration_text(begin: str, end: str) -> str:
    """Return the time between two stored times."""
    seconds = int((_moment(end) - _moment(begin)).total_seconds())
    minutes, rest = divmod(max(0, seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _moment(text: str) -> datetime:
    return parse_text(text)
