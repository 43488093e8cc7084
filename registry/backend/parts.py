"""What a part of the backend brings to the frame, and the list of parts."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from litestar.types import ControllerRouterHandler

from registry.backend.blobs import Blob
from registry.backend.database import Migration
from registry.backend.graphql.fields import FieldSet

if TYPE_CHECKING:
    from registry.backend.context import Context

Claims = Mapping[str, object]
RecordUpload = Callable[[sqlite3.Connection, Claims, Blob], Iterable[str] | None]
"""Record an arrived blob inside the transaction that publishes it.

Returns the blobs (SHA-256) that it replaced; after a while those without a reference are collected.

Raises `NotFoundError` when what the URL was made for is gone (404; the blob is dropped) and
`IntegrityError` when the bytes are not those promised (400).
"""

RunDeleteHook = Callable[["Context", sqlite3.Row, bool], None]
"""`hook(context, run row, delete_artifacts)`; rows that refer to the run must go or let go."""

ProjectDeleteHook = Callable[["Context", sqlite3.Row], None]
"""`hook(context, project row)`."""

ProjectUpsertHook = Callable[["Context", sqlite3.Row, Mapping[str, object]], None]
"""`hook(context, project row, arguments of upsertModel that the frame does not keep)`."""


@dataclass(frozen=True, slots=True)
class Part:
    """One half of the backend.

    Attributes:
        name: for messages.
        migrations: its tables, oldest first; names start with the part's name.
        field_sets: its GraphQL fields.
        blob_references: SQL queries of one column each: every SHA-256 that the part refers to.
        upload_kinds: what to do with an arrived upload, by the kind in its signed URL.
        routes: its own HTTP handlers.
        features: names of W&B server features that it supports.
        run_delete_hooks: called before a run is deleted, in the same transaction.
        project_upsert_hooks: called after a project was made or described, before the commit.
        project_delete_hooks: called before a project is deleted, in the same transaction.
    """

    name: str
    migrations: Sequence[Migration] = ()
    field_sets: Sequence[FieldSet] = ()
    blob_references: Sequence[str] = ()
    upload_kinds: Mapping[str, RecordUpload] = field(default_factory=dict)
    routes: Sequence[ControllerRouterHandler] = ()
    features: Sequence[str] = ()
    run_delete_hooks: Sequence[RunDeleteHook] = ()
    project_upsert_hooks: Sequence[ProjectUpsertHook] = ()
    project_delete_hooks: Sequence[ProjectDeleteHook] = ()


def default_parts() -> tuple[Part, ...]:
    """Return all parts in the order in which their tables depend on each other."""
    from registry.backend.artifacts.part import ARTIFACTS
    from registry.backend.pages.part import PAGES
    from registry.backend.runs.part import RUNS

    return (RUNS, ARTIFACTS, PAGES)
