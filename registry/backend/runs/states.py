"""Run states: which one a run is in, and which changes a client may ask for."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta

from registry.backend.clock import to_text
from registry.backend.graphql.errors import OperationError

INTERRUPTED_EXIT_CODE = 255
"""What the SDK reports after Ctrl-C."""

_REQUESTABLE = {
    "pending": frozenset({"running", "failed", "crashed", "preempted"}),
    "failed": frozenset({"pending", "running"}),
}


def state_of(run: sqlite3.Row, heartbeat_timeout_s: float) -> str:
    """Return the run's state; one that fell silent while running has crashed."""
    stored = str(run["state"])
    if stored not in ("running", "preempting"):
        return stored
    deadline = to_text(datetime.now(UTC) - timedelta(seconds=heartbeat_timeout_s))
    return "crashed" if str(run["heartbeat_at"]) < deadline else stored


def final_state(exit_code: int, *, stop_requested: bool, preempting: bool) -> str:
    """Return the state of a run whose process ended with `exit_code`."""
    if exit_code == 0:
        return "finished"
    if preempting:
        return "preempted"
    if stop_requested or exit_code == INTERRUPTED_EXIT_CODE:
        return "killed"
    return "failed"


def checked_transition(current: str, wanted: str | None) -> str:
    """Return `wanted` if a client may move a run there from `current`.

    Raises:
        OperationError: it may not.
    """
    if wanted is None or current not in _REQUESTABLE.get(wanted, frozenset()):
        raise OperationError(f"A run that is {current} cannot be set to {wanted}.")
    return wanted
