"""The page of one run. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from registry.backend.pages.artifact_queries import VersionSummary
from registry.backend.pages.charts import line_chart, number
from registry.backend.pages.layout import (
    badges,
    card,
    duration_text,
    link,
    page,
    pairs,
    section,
    size_text,
    state_badge,
    table,
    time_text,
)
from registry.backend.pages.lists import trail, version_table
from registry.backend.pages.markup import Markup, element
from registry.backend.pages.queries import RunDetail
from registry.backend.pages.series import Series, grouped, numeric_series

MAX_CHARTS = 120
_INTERNAL = ("_wandb", "_timestamp")

Download = Callable[[str, str], str]
"""Give the address of a stored file: (SHA-256, name) -> URL."""


def run_page(
    run: RunDetail,
    logged: Sequence[VersionSummary],
    used: Sequence[VersionSummary],
    download: Download,
) -> str:
    """Return a run's page."""
    about = run.about
    here = link(about.display_name, about.entity, about.project, "runs", about.name)
    return page(
        about.display_name,
        [*trail(about.entity, about.project), here],
        element("h1", about.display_name),
        _facts(run),
        element("p", run.notes) if run.notes else None,
        section("History", *_charts(run)),
        element(
            "div",
            section("Summary", pairs(_shown(about.summary), empty="No summary.")),
            section("Config", pairs(run.config, empty="No config.")),
            class_="columns",
        ),
        section("Artifacts logged", version_table(logged)),
        section("Artifacts used", version_table(used)),
        section("Files", _files(run, download)),
        section("Console", *_console(run)),
    )


def _facts(run: RunDetail) -> Markup:
    about = run.about
    facts = {"job type": about.job_type, "group": run.group, "host": run.host, "by": run.program}
    return element(
        "p",
        state_badge(about.state),
        element("code", about.name),
        [element("span", f"{name} {value}") for name, value in facts.items() if value],
        element("span", "started ", time_text(about.created_at)),
        element("span", f"lasted {duration_text(about.created_at, about.heartbeat_at)}"),
        element("span", badges(about.tags)) if about.tags else None,
        class_="lead",
    )


def _shown(summary: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in summary.items() if not key.startswith(_INTERNAL)}


def _charts(run: RunDetail) -> list[Markup]:
    drawn = [one for one in numeric_series(run.history, run.raw_config) if one.points]
    if not drawn:
        return [card(element("p", "No numbers were logged.", class_="empty"))]
    parts: list[Markup] = []
    for head, group in grouped(drawn[:MAX_CHARTS]).items():
        if head:
            parts.append(element("h3", head))
        parts.append(element("div", [_chart(one) for one in group], class_="charts"))
    parts.extend(_remarks(run, drawn))
    return parts


def _remarks(run: RunDetail, drawn: Sequence[Series]) -> list[Markup]:
    remarks = []
    if len(drawn) > MAX_CHARTS:
        remarks.append(f"{len(drawn) - MAX_CHARTS} more series are not drawn.")
    if len(run.history) < run.history_length:
        remarks.append(f"{len(run.history):,} of {run.history_length:,} rows are drawn.")
    return [element("p", remark, class_="quiet") for remark in remarks]


def _chart(series: Series) -> Markup:
    skipped = f" ({series.skipped} not finite)" if series.skipped else ""
    return element(
        "figure",
        element(
            "figcaption",
            element("span", series.key, class_="name"),
            element("span", f"{number(series.points[-1][1])}{skipped}", class_="last"),
        ),
        line_chart(series.points, label=series.key, x_label=series.x_key.lstrip("_")),
        class_="card",
    )


def _files(run: RunDetail, download: Download) -> Markup:
    return table(
        ("File", "#Size"),
        [
            (
                element("a", file.name, href=download(file.sha256, file.name)),
                size_text(file.size_bytes),
            )
            for file in run.files
        ],
        empty="No files.",
    )


def _console(run: RunDetail) -> list[Markup]:
    if not run.console:
        return [card(element("p", "No output.", class_="empty"))]
    parts = [card(element("pre", "\n".join(run.console), tabindex=0))]
    if len(run.console) < run.console_length:
        text = f"The last {len(run.console)} of {run.console_length:,} lines."
        parts.append(element("p", text, class_="quiet"))
    return parts
