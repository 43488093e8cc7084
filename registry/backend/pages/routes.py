"""Addresses of the pages. Read-only and without a key: see `docs/backend-pages.md`.

A page answers GET on loopback names only (`LoopbackHosts`); what it links to for
download carries a signed, expiring right. The policy forbids scripts, forms,
frames and every request to another origin, whatever a run's values contain.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from functools import lru_cache
from importlib import resources
from typing import Any

from litestar import Response, get

from registry.backend.artifacts.lineage import Direction
from registry.backend.pages import lists
from registry.backend.pages.artifact_queries import ArtifactPages
from registry.backend.pages.layout import STYLE_PATH, page
from registry.backend.pages.markup import element
from registry.backend.pages.queries import RUNS_PER_PAGE, ProjectSummary, RunPages
from registry.backend.pages.run_page import Download, run_page
from registry.backend.pages.version_page import version_page
from registry.backend.responses import (
    AnyRequest,
    backend_of,
    base_url_of,
    describe,
    path_parameter,
)

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none';"
        " form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

Page = Response[str]
Render = Callable[[sqlite3.Connection], str]


def _html(text: str, status: int = 200) -> Page:
    return Response(
        text, status_code=status, media_type="text/html; charset=utf-8", headers=_HEADERS
    )


def page_error(_: AnyRequest, error: Exception) -> Page:
    """Answer a failed page as a page."""
    status, message = describe(error)
    title = "Not found" if status == 404 else "This page cannot be shown"
    return _html(page(title, [], element("h1", title), element("p", message)), status)


_ERRORS: dict[int | type[Exception], Callable[[AnyRequest, Any], Page]] = {Exception: page_error}


async def _rendered(request: AnyRequest, render: Render) -> Page:
    """Render from one snapshot of the database, off the event loop."""
    backend = backend_of(request)

    def work() -> str:
        with backend.database.read() as connection:
            return render(connection)

    return _html(await asyncio.to_thread(work))


def _runs(request: AnyRequest, connection: sqlite3.Connection) -> RunPages:
    return RunPages(connection, backend_of(request).settings.heartbeat_timeout_s)


def _download(request: AnyRequest) -> Download:
    signer, base_url = backend_of(request).signer, base_url_of(request)
    return lambda sha256, name: signer.download_url(base_url, sha256, name)


@lru_cache(maxsize=1)
def _stylesheet() -> str:
    return resources.files(__package__).joinpath("style.css").read_text("utf-8")


@get(STYLE_PATH)
async def style() -> Response[str]:
    """Send the stylesheet of all pages."""
    headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "max-age=300"}
    return Response(_stylesheet(), media_type="text/css; charset=utf-8", headers=headers)


@get("/", exception_handlers=_ERRORS)
async def root(request: AnyRequest) -> Page:
    """List all projects and the newest runs."""

    def render(connection: sqlite3.Connection) -> str:
        runs = _runs(request, connection)
        return lists.home(runs.projects(), runs.runs(None)[:10])

    return await _rendered(request, render)


@get("/{entity:str}", exception_handlers=_ERRORS)
async def entity_projects(request: AnyRequest) -> Page:
    """List an entity's projects."""
    entity = path_parameter(request, "entity")
    return await _rendered(
        request,
        lambda connection: lists.home(_runs(request, connection).projects(entity), [], entity),
    )


@get(
    [
        "/{entity:str}/{project:str}",
        "/{entity:str}/{project:str}/workspace",
        "/{entity:str}/{project:str}/overview",
    ],
    exception_handlers=_ERRORS,
)
async def project(request: AnyRequest) -> Page:
    """Show a project."""
    entity, name = path_parameter(request, "entity"), path_parameter(request, "project")
    text = request.query_params.get("page", "1")
    number = max(1, int(text)) if text.isascii() and text.isdigit() and len(text) < 9 else 1

    def render(connection: sqlite3.Connection) -> str:
        runs = _runs(request, connection)
        row = runs.project(entity, name)
        collections = ArtifactPages(connection).collections(row["id"])
        summary = ProjectSummary(entity, name, runs.run_count(row["id"]), len(collections), None)
        shown = runs.runs(row["id"], offset=(number - 1) * RUNS_PER_PAGE)
        return lists.project_page(summary, shown, collections, number)

    return await _rendered(request, render)


@get(
    [
        "/{entity:str}/{project:str}/runs/{run:str}",
        "/{entity:str}/{project:str}/runs/{run:str}/{tab:str}",
    ],
    exception_handlers=_ERRORS,
)
async def run(request: AnyRequest) -> Page:
    """Show a run: the address that the SDK prints."""
    names = [path_parameter(request, part) for part in ("entity", "project", "run")]

    def render(connection: sqlite3.Connection) -> str:
        detail = _runs(request, connection).run(*names)
        artifacts = ArtifactPages(connection)
        logged = artifacts.of_run(detail.row_id, Direction.OUTPUT)
        used = artifacts.of_run(detail.row_id, Direction.INPUT)
        return run_page(detail, logged, used, _download(request))

    return await _rendered(request, render)


@get(
    "/{entity:str}/{project:str}/artifacts/{kind:str}/{collection:str}",
    exception_handlers=_ERRORS,
)
async def collection(request: AnyRequest) -> Page:
    """Show a collection's versions."""
    entity, project_name, name = (
        path_parameter(request, part) for part in ("entity", "project", "collection")
    )

    def render(connection: sqlite3.Connection) -> str:
        row = _runs(request, connection).project(entity, project_name)
        artifacts = ArtifactPages(connection)
        summary, found = artifacts.collection(row["id"], name)
        return lists.collection_page(entity, project_name, summary, artifacts.versions(found["id"]))

    return await _rendered(request, render)


@get(
    [
        "/{entity:str}/{project:str}/artifacts/{kind:str}/{collection:str}/{version:str}",
        "/{entity:str}/{project:str}/artifacts/{kind:str}/{collection:str}/{version:str}/{tab:str}",
    ],
    exception_handlers=_ERRORS,
)
async def version(request: AnyRequest) -> Page:
    """Show a version; an alias in its place will do."""
    entity, project_name, name, alias = (
        path_parameter(request, part) for part in ("entity", "project", "collection", "version")
    )

    def render(connection: sqlite3.Connection) -> str:
        row = _runs(request, connection).project(entity, project_name)
        artifacts = ArtifactPages(connection)
        summary, found = artifacts.collection(row["id"], name)
        return version_page(summary, artifacts.version(found, alias), _download(request))

    return await _rendered(request, render)
