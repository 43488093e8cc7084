"""Pages that list: the root, an entity, a project, a collection. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from registry.backend.pages.artifact_queries import CollectionSummary, VersionSummary
from registry.backend.pages.charts import number
from registry.backend.pages.layout import (
    badges,
    duration_text,
    href,
    link,
    page,
    section,
    size_text,
    state_badge,
    table,
    time_text,
)
from registry.backend.pages.markup import Child, Markup, element
from registry.backend.pages.queries import RUNS_PER_PAGE, ProjectSummary, RunSummary

_SUMMARY_VALUES = 4
_SHOWN_FIRST = ("eval/", "total/", "train/")


def home(
    projects: Sequence[ProjectSummary], recent: Sequence[RunSummary], entity: str | None = None
) -> str:
    """Return the root page, or an entity's."""
    trail = [link(entity, entity)] if entity else []
    return page(
        entity or "Projects",
        trail,
        element("h1", entity or "Projects"),
        table(
            ("Project", "#Runs", "#Artifact collections", "Last active (UTC)"),
            [
                (
                    [
                        element("span", f"{project.entity} / ", class_="quiet"),
                        link(project.name, project.entity, project.name),
                    ],
                    project.runs,
                    project.collections,
                    time_text(project.active_at),
                )
                for project in projects
            ],
            empty="Nothing yet. Point the wandb SDK here with what `registry backend env` prints.",
        ),
        section("Recent runs", run_table(recent, with_project=True)) if recent else None,
    )


def project_page(
    project: ProjectSummary,
    runs: Sequence[RunSummary],
    collections: Sequence[CollectionSummary],
    page_number: int,
) -> str:
    """Return a project's page: its collections and one page of its runs."""
    return page(
        f"{project.entity}/{project.name}",
        trail(project.entity, project.name),
        element("h1", project.name),
        element(
            "p",
            element("span", f"{project.runs} runs"),
            element("span", f"{project.collections} artifact collections"),
            class_="lead",
        ),
        section("Artifacts", _collection_table(project, collections)),
        section(
            "Runs",
            run_table(runs, with_project=False),
            _paging(project, page_number),
        ),
    )


def collection_page(
    entity: str, project: str, collection: CollectionSummary, versions: Sequence[VersionSummary]
) -> str:
    """Return a collection's page: its versions."""
    return page(
        f"{collection.name}",
        [*trail(entity, project), collection_link(entity, project, collection)],
        element("h1", collection.name),
        element(
            "p",
            element("span", collection.type_name),
            element("span", "links to versions of other collections")
            if collection.is_links
            else None,
            element("span", badges(collection.tags)) if collection.tags else None,
            class_="lead",
        ),
        element("p", collection.description) if collection.description else None,
        section("Versions", version_table(versions, short=True)),
    )


def trail(entity: str, project: str) -> list[Markup]:
    """Return the links that lead to a project."""
    return [link(entity, entity), link(project, entity, project)]


def collection_link(entity: str, project: str, collection: CollectionSummary) -> Markup:
    """Return a link to a collection's page."""
    return link(
        collection.name, entity, project, "artifacts", collection.type_name, collection.name
    )


def version_link(version: VersionSummary, *, short: bool = False) -> Markup:
    """Return a link to a version's page, called `v3` or `collection:v3`."""
    text = version.version if short else f"{version.collection}:{version.version}"
    return link(text, *version_path(version))


def version_path(version: VersionSummary) -> tuple[str, ...]:
    """Return the segments of a version's page, as the SDK's `Artifact.url` has them."""
    return (
        version.entity,
        version.project,
        "artifacts",
        version.type_name,
        version.collection,
        version.version,
    )


def version_table(versions: Sequence[VersionSummary], *, short: bool = False) -> Markup:
    """Return versions as a table."""
    return table(
        ("Version", "Aliases", "Type", "#Files", "#Size", "Logged (UTC)", "Digest"),
        [
            (
                version_link(version, short=short),
                badges(version.aliases, "alias"),
                version.type_name,
                version.file_count,
                size_text(version.size_bytes),
                time_text(version.created_at),
                element("code", version.digest[:12]),
            )
            for version in versions
        ],
        empty="None.",
    )


def run_table(runs: Sequence[RunSummary], *, with_project: bool) -> Markup:
    """Return runs as a table."""
    return table(
        ("Run", "State", "Job type", "Summary", "Started (UTC)", "Lasted"),
        [
            (
                _run_name(run, with_project=with_project),
                state_badge(run.state),
                run.job_type or element("span", "—", class_="quiet"),
                _summary(run.summary),
                time_text(run.created_at),
                duration_text(run.created_at, run.heartbeat_at),
            )
            for run in runs
        ],
        empty="No runs.",
    )


def _run_name(run: RunSummary, *, with_project: bool) -> Child:
    name = link(run.display_name, run.entity, run.project, "runs", run.name)
    if not with_project:
        return name
    place = f"{run.entity} / {run.project} / "
    return [element("span", place, class_="quiet"), name]


def _summary(summary: Mapping[str, Any]) -> Child:
    """Return the few numbers that say most: evaluation first, then what comes first by name."""
    numbers = {
        key: value
        for key, value in summary.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and key[:1] != "_"
    }
    ranked = sorted(numbers, key=lambda key: (_rank(key), key))[:_SUMMARY_VALUES]
    return badges(f"{key} {number(numbers[key])}" for key in ranked)


def _rank(key: str) -> int:
    return next((n for n, head in enumerate(_SHOWN_FIRST) if key.startswith(head)), 99)


def _collection_table(project: ProjectSummary, collections: Sequence[CollectionSummary]) -> Markup:
    return table(
        ("Collection", "Type", "#Versions", "Newest", "Aliases", "#Size", "Logged (UTC)"),
        [
            (
                collection_link(project.entity, project.name, collection),
                collection.type_name,
                collection.versions,
                *_newest(collection.newest),
            )
            for collection in collections
        ],
        empty="No artifacts.",
    )


def _newest(newest: VersionSummary | None) -> tuple[Child, Child, Child, Child]:
    if newest is None:
        return "—", None, "—", "—"
    return (
        version_link(newest, short=True),
        badges(newest.aliases, "alias"),
        size_text(newest.size_bytes),
        time_text(newest.created_at),
    )


def _paging(project: ProjectSummary, page_number: int) -> Markup | None:
    pages = -(-project.runs // RUNS_PER_PAGE)
    if pages <= 1:
        return None
    path = href(project.entity, project.name)
    return element(
        "nav",
        element("a", "← newer", href=f"{path}?page={page_number - 1}") if page_number > 1 else None,
        element("span", f"page {page_number} of {pages}", class_="quiet"),
        element("a", "older →", href=f"{path}?page={page_number + 1}")
        if page_number < pages
        else None,
        class_="pages",
        aria_label="Pages of runs",
    )
