"""Fields of a run."""

from __future__ import annotations

import json
import sqlite3

from registry.backend.clock import parse_text, public_text
from registry.backend.context import Context
from registry.backend.graphql.fields import FieldSet, Node
from registry.backend.identifiers import encode_id
from registry.backend.runs.account import user_node
from registry.backend.runs.documents import parse_object
from registry.backend.runs.history import (
    CONSOLE,
    EVENTS,
    HISTORY,
    last_step,
    line_count,
    lines_between,
    sample_evenly,
    sampled,
    tail,
)
from registry.backend.runs.states import state_of

fields = FieldSet()

fields.columns(
    "Run",
    {
        "name": "name",
        "displayName": "display_name",
        "config": "config",
        "summaryMetrics": "summary",
        "group": "run_group",
        "groupName": "run_group",
        "jobType": "job_type",
        "notes": "notes",
        "description": "description",
        "commit": "commit_sha",
        "repo": "repository",
        "program": "program",
        "host": "host",
        "sweepName": "sweep",
        "exitcode": "exit_code",
    },
)
fields.constants("Run", {"readOnly": False, "sweep": None, "benchmarkRun": None})


@fields.on("Run", "id")
def run_id(_context: Context, run: sqlite3.Row) -> str:
    """Return the public id."""
    return encode_id("Run", run["id"])


@fields.on("Run", "internalId")
def internal_id(_context: Context, run: sqlite3.Row) -> str:
    """Return the row number as text."""
    return str(run["id"])


@fields.on("Run", "projectId")
def project_id(_context: Context, run: sqlite3.Row) -> str:
    """Return the project's row number as text."""
    return str(run["project_id"])


@fields.on("Run", "project")
def project(context: Context, run: sqlite3.Row) -> Node:
    """Return the project that holds the run."""
    row = context.connection.execute(
        "SELECT * FROM projects WHERE id = ?", (run["project_id"],)
    ).fetchone()
    return Node("Project", row)


@fields.on("Run", "user")
def user(context: Context, _run: sqlite3.Row) -> Node:
    """Return the single user."""
    return user_node(context)


@fields.on("Run", "tags")
def tags(_context: Context, run: sqlite3.Row) -> list[str]:
    """Return the tags, in the order given."""
    found: list[str] = json.loads(run["tags"])
    return found


@fields.on("Run", "state")
def state(context: Context, run: sqlite3.Row) -> str:
    """Return the state now; a silent run has crashed."""
    return state_of(run, context.backend.settings.heartbeat_timeout_s)


@fields.on("Run", "running")
def running(context: Context, run: sqlite3.Row) -> bool:
    """Tell whether the run is running."""
    return state(context, run) == "running"


@fields.on("Run", "failed")
def failed(context: Context, run: sqlite3.Row) -> bool:
    """Tell whether the run ended badly."""
    return state(context, run) in ("failed", "crashed", "killed")


@fields.on("Run", "stopped", "shouldStop")
def stopped(_context: Context, run: sqlite3.Row) -> bool:
    """Tell whether the run was asked to stop."""
    return bool(run["stop_requested"])


@fields.on("Run", "createdAt")
def created_at(_context: Context, run: sqlite3.Row) -> str | None:
    """Return when the run was made."""
    return public_text(run["created_at"])


@fields.on("Run", "updatedAt")
def updated_at(_context: Context, run: sqlite3.Row) -> str | None:
    """Return when the run last changed."""
    return public_text(run["updated_at"])


@fields.on("Run", "heartbeatAt")
def heartbeat_at(_context: Context, run: sqlite3.Row) -> str | None:
    """Return when the run's process was last heard of."""
    return public_text(run["heartbeat_at"])


@fields.on("Run", "computeSeconds")
def compute_seconds(_context: Context, run: sqlite3.Row) -> float:
    """Return seconds between the start and the last sign of life."""
    start, end = parse_text(run["created_at"]), parse_text(run["heartbeat_at"])
    return (end - start).total_seconds()


@fields.on("Run", "wandbConfig")
def wandb_config(_context: Context, run: sqlite3.Row, *, keys: list[str] | None = None) -> str:
    """Return W&B's own part of the configuration as JSON text; `t` marks a started run."""
    own = parse_object(run["config"], "configuration").get("_wandb") or {}
    value = own.get("value", {}) if isinstance(own, dict) else {}
    return json.dumps({k: v for k, v in value.items() if keys is None or k in keys})


@fields.on("Run", "historyLineCount")
def history_line_count(context: Context, run: sqlite3.Row) -> int:
    """Return the number of history lines."""
    return line_count(context.connection, run["id"], HISTORY)


@fields.on("Run", "eventsLineCount")
def events_line_count(context: Context, run: sqlite3.Row) -> int:
    """Return the number of system metric lines."""
    return line_count(context.connection, run["id"], EVENTS)


@fields.on("Run", "logLineCount")
def log_line_count(context: Context, run: sqlite3.Row) -> int:
    """Return the number of console lines."""
    return line_count(context.connection, run["id"], CONSOLE)


@fields.on("Run", "historyTail")
def history_tail(context: Context, run: sqlite3.Row) -> str:
    """Return the last history line, as JSON text of a list of JSON texts."""
    return json.dumps(tail(context.connection, run["id"], HISTORY))


@fields.on("Run", "eventsTail")
def events_tail(context: Context, run: sqlite3.Row) -> str:
    """Return the last system metrics, as JSON text of a list of JSON texts."""
    return json.dumps(tail(context.connection, run["id"], EVENTS))


@fields.on("Run", "systemMetrics")
def system_metrics(context: Context, run: sqlite3.Row) -> str:
    """Return the last system metrics as JSON text, without the bookkeeping keys."""
    last = tail(context.connection, run["id"], EVENTS)
    values = parse_object(last[0] if last else None, "event")
    return json.dumps({k: v for k, v in values.items() if not k.startswith("_")})


@fields.on("Run", "history")
def history(
    context: Context,
    run: sqlite3.Row,
    *,
    samples: int | None = None,
    min_step: int | None = None,
    max_step: int | None = None,
) -> list[str]:
    """Return history lines: all of a range of steps, or an even sample of the whole."""
    lines = lines_between(context.connection, run["id"], HISTORY, min_step, max_step)
    paged = min_step is not None or max_step is not None
    return lines if paged else sample_evenly(lines, samples)


@fields.on("Run", "events")
def events(context: Context, run: sqlite3.Row, *, samples: int | None = None) -> list[str]:
    """Return an even sample of the system metrics."""
    return sample_evenly(lines_between(context.connection, run["id"], EVENTS), samples)


@fields.on("Run", "sampledHistory")
def sampled_history(
    context: Context, run: sqlite3.Row, *, specs: list[str] | None = None
) -> list[list[dict[str, object]]]:
    """Return, for each spec, the rows that have all of its keys."""
    parsed = [parse_object(spec, "history spec") for spec in specs or ()]
    return [sampled(context.connection, run["id"], spec) for spec in parsed]


@fields.on("Run", "parquetHistory")
def parquet_history(
    _context: Context, _run: sqlite3.Row, *, live_keys: list[str] | None = None
) -> dict[str, object]:
    """Return no Parquet files: the SDK then reads the history by pages."""
    del live_keys
    return {"parquetUrls": [], "liveData": []}


@fields.on("Run", "historyKeys")
def history_keys(context: Context, run: sqlite3.Row) -> dict[str, object]:
    """Return which keys the history has, with counts by type, and the last step."""
    counted: dict[str, dict[str, int]] = json.loads(run["history_keys"])
    keys = {
        key: {"typeCounts": [{"type": kind, "count": n} for kind, n in sorted(counts.items())]}
        for key, counts in counted.items()
    }
    last = last_step(context.connection, run["id"])
    return {"keys": keys, "lastStep": last, "sets": []}


@fields.on("Run", "alerts")
def alerts(context: Context, run: sqlite3.Row) -> list[dict[str, object]]:
    """Return the run's alerts, oldest first."""
    rows = context.connection.execute(
        "SELECT * FROM alerts WHERE run_id = ? ORDER BY id", (run["id"],)
    )
    return [
        {
            "title": row["title"],
            "text": row["text"],
            "severity": row["severity"],
            "createdAt": public_text(row["created_at"]),
        }
        for row in rows
    ]
