"""The page of one artifact version. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from registry.backend.pages.artifact_queries import (
    CollectionSummary,
    Entry,
    RunLink,
    VersionDetail,
    VersionSummary,
)
from registry.backend.pages.layout import (
    badges,
    link,
    page,
    pairs,
    section,
    size_text,
    table,
    time_text,
)
from registry.backend.pages.lists import collection_link, trail, version_link, version_table
from registry.backend.pages.markup import Child, Markup, element
from registry.backend.pages.run_page import Download


def version_page(collection: CollectionSummary, version: VersionDetail, download: Download) -> str:
    """Return a version's page."""
    about = version.about
    title = f"{about.collection}:{about.version}"
    return page(
        title,
        [
            *trail(about.entity, about.project),
            collection_link(about.entity, about.project, collection),
            version_link(about, short=True),
        ],
        element("h1", title),
        _facts(version),
        element("p", version.description) if version.description else None,
        section("Lineage", _lineage(version)),
        section("Metadata", pairs(version.metadata, empty="No metadata.")),
        section("Files", *_files(version, download)),
        section("Also in", version_table(elsewhere))
        if (elsewhere := _elsewhere(version))
        else None,
    )


def _facts(version: VersionDetail) -> Markup:
    about = version.about
    return element(
        "p",
        element("span", badges(about.aliases, "alias")) if about.aliases else None,
        element("span", badges(version.tags)) if version.tags else None,
        element("span", about.type_name),
        element("span", f"{about.file_count} files, {size_text(about.size_bytes)}"),
        element("span", "logged ", time_text(about.created_at)),
        element("span", "digest ", element("code", about.digest)),
        class_="lead",
    )


def _lineage(version: VersionDetail) -> Markup:
    rows: list[tuple[Child, ...]] = [
        ("Made from", _versions(version.made_from)),
        ("Logged by", _runs(version.made_by)),
        ("Used by", _runs(version.used_by)),
        ("Led to", _versions(version.led_to)),
    ]
    return table(("Relation", "What"), rows, empty="")


def _runs(runs: Sequence[RunLink]) -> Child:
    if not runs:
        return element("span", "—", class_="quiet")
    return [
        element(
            "div",
            link(run.display_name, run.entity, run.project, "runs", run.name),
            element("span", f" {run.job_type}", class_="quiet") if run.job_type else None,
        )
        for run in runs
    ]


def _versions(versions: Sequence[VersionSummary]) -> Child:
    if not versions:
        return element("span", "—", class_="quiet")
    return [
        element(
            "div",
            version_link(version),
            element("span", f" {version.type_name}", class_="quiet"),
        )
        for version in versions
    ]


def _files(version: VersionDetail, download: Download) -> list[Markup]:
    rows = [
        (_file(entry, download), size_text(entry.size_bytes), element("code", entry.digest))
        for entry in version.entries
    ]
    parts = [table(("File", "#Size", "Digest"), rows, empty="No files.")]
    more = version.about.file_count - len(version.entries)
    if more > 0:
        parts.append(element("p", f"{more:,} more files are not listed.", class_="quiet"))
    return parts


def _file(entry: Entry, download: Download) -> Child:
    if entry.sha256 is None:
        # Not a link: where it leads is the choice of whoever logged the artifact.
        return [entry.path, element("div", f"→ {entry.reference}", class_="quiet")]
    return element("a", entry.path, href=download(entry.sha256, entry.path))


def _elsewhere(version: VersionDetail) -> list[VersionSummary]:
    own = (version.about.entity, version.about.project, version.about.collection)
    return [p for p in version.places if (p.entity, p.project, p.collection) != own]
