"""Runs of a project: one by name, many by filter and order."""

from __future__ import annotations

import sqlite3

from registry.backend.context import Context
from registry.backend.graphql.fields import FieldSet, Node
from registry.backend.paging import Page
from registry.backend.runs.filters import RunView, compile_filter, order_runs
from registry.backend.runs.lookup import run_row
from registry.backend.runs.states import state_of

fields = FieldSet()


@fields.on("Project", "run", "bucket")
def run(
    context: Context,
    project: sqlite3.Row,
    *,
    name: str | None = None,
    missing_ok: bool | None = None,
    desc: str | None = None,
) -> Node | None:
    """Return the run with the client's id `name`, or null; nothing is made on the way."""
    del missing_ok, desc
    row = run_row(context.connection, project["id"], name)
    return Node("Run", row) if row else None


@fields.on("Project", "runCount")
def run_count(context: Context, project: sqlite3.Row, *, filters: str | None = None) -> int:
    """Return how many runs pass the filter."""
    return len(matching_runs(context, project, filters))


@fields.on("Project", "runs", "buckets")
def runs(
    context: Context,
    project: sqlite3.Row,
    *,
    filters: str | None = None,
    order: str | None = None,
    first: int | None = None,
    after: str | None = None,
) -> dict[str, object]:
    """Return a page of the runs that pass the filter, in order."""
    ordered = order_runs(matching_runs(context, project, filters), order)
    return Page.of(first, after).cut([Node("Run", view.row) for view in ordered])


def matching_runs(context: Context, project: sqlite3.Row, filters: object) -> list[RunView]:
    """Return the project's runs that pass a Mongo-style filter, oldest first.

    Raises:
        OperationError: the filter is malformed.
    """
    accepts = compile_filter(filters)
    settings = context.backend.settings
    rows = context.connection.execute(
        "SELECT * FROM runs WHERE project_id = ? ORDER BY id", (project["id"],)
    )
    views = (
        RunView(row, state_of(row, settings.heartbeat_timeout_s), settings.entity) for row in rows
    )
    return [view for view in views if accepts(view)]
