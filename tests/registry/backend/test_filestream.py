"""`file_stream` messages: the same state whatever is repeated, resent or malformed."""

from __future__ import annotations

import itertools
import json
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from litestar.exceptions import ClientException

from registry.backend.database import Database
from registry.backend.runs.filestream import apply_message
from registry.backend.runs.history import (
    CONSOLE,
    HISTORY,
    last_step,
    line_count,
    lines_between,
    sample_evenly,
    sampled,
)
from registry.backend.runs.lookup import ensure_project, run_row
from registry.backend.runs.schema import MIGRATIONS


@contextmanager
def fresh_run() -> Iterator[tuple[Database, sqlite3.Row]]:
    with tempfile.TemporaryDirectory() as folder:
        database = Database(Path(folder) / "db", MIGRATIONS)
        database.open()
        with database.write() as connection:
            project = ensure_project(connection, "e", "p")
            connection.execute(
                "INSERT INTO runs (project_id, name, display_name, created_at, updated_at,"
                " heartbeat_at) VALUES (?, 'r', 'r', '', '', '')",
                (project["id"],),
            )
            run = run_row(connection, project["id"], "r")
            assert run
        yield database, run
        database.close()


def history(offset: int, steps: list[int]) -> dict[str, object]:
    content = [json.dumps({"_step": step, "loss": step / 2}) for step in steps]
    return {"files": {"wandb-history.jsonl": {"offset": offset, "content": content}}}


def state(database: Database, run: sqlite3.Row) -> list[object]:
    with database.read() as connection:
        row = connection.execute(
            "SELECT state, exit_code, summary, history_keys FROM runs"
        ).fetchone()
        lines = connection.execute(
            "SELECT stream, number, step, content FROM run_lines ORDER BY stream, number"
        ).fetchall()
        count = line_count(connection, run["id"], HISTORY)
    return [tuple(row), [tuple(line) for line in lines], count]


@settings(max_examples=25, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 30), max_size=5),
    resent=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=6),
)
def test_resending_changes_nothing(cuts: list[int], resent: list[tuple[int, int]]) -> None:
    edges = sorted({0, 30, *cuts})
    chunks = [history(a, list(range(a, b))) for a, b in itertools.pairwise(edges)]
    summary = {
        "files": {"wandb-summary.json": {"offset": 0, "content": ['{"old": 1}', '{"a": 1}']}}
    }
    with fresh_run() as (database, run), fresh_run() as (reference, other):
        for index, chunk in enumerate([*chunks, summary]):
            with reference.write() as connection:
                apply_message(connection, other, chunk)
            with database.write() as connection:
                apply_message(connection, run, chunk)
                for after, which in resent:
                    if after == index:
                        sent = [*chunks, summary][: index + 1]
                        apply_message(connection, run, sent[which % len(sent)])
        assert state(database, run) == state(reference, other)
        assert state(database, run)[2] == 30


def test_a_run_started_anew_overwrites_its_former_life() -> None:
    with fresh_run() as (database, run):
        with database.write() as connection:
            apply_message(connection, run, history(0, [0, 1, 2, 3]))
            apply_message(connection, run, history(4, [0, 1]))
        with database.read() as connection:
            steps = [json.loads(line)["_step"] for line in lines_between(connection, 1, HISTORY)]
            assert steps == [0, 1]
            assert last_step(connection, run["id"]) == 1
            keys = connection.execute("SELECT history_keys FROM runs").fetchone()[0]
            assert json.loads(keys)["loss"] == {"number": 2}
            assert line_count(connection, run["id"], HISTORY) == 6


def test_console_lines_may_be_rewritten() -> None:
    with fresh_run() as (database, run):
        for offset, content in ((0, ["a", "b"]), (1, ["B", "c"]), (0, ["A"])):
            with database.write() as connection:
                message = {"files": {"output.log": {"offset": offset, "content": content}}}
                apply_message(connection, run, message)
        with database.read() as connection:
            assert lines_between(connection, run["id"], CONSOLE) == ["A", "B", "c"]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"complete": True, "exitcode": 0}, "finished"),
        ({"complete": True, "exitcode": 1}, "failed"),
        ({"complete": True, "exitcode": 255}, "killed"),
        ({"complete": True, "exitcode": 1, "preempting": True}, "preempted"),
        ({"preempting": True}, "preempting"),
        ({"complete": False}, "running"),
        ({}, "running"),
        ({"files": {"unknown.txt": {"offset": 0, "content": ["x"]}}}, "running"),
        ({"files": {"wandb-summary.json": {"offset": 0, "content": ["no json"]}}}, "running"),
    ],
)
def test_states(message: dict[str, object], expected: str) -> None:
    with fresh_run() as (database, run):
        with database.write() as connection:
            apply_message(connection, run, message)
        with database.read() as connection:
            row = connection.execute("SELECT state, summary FROM runs").fetchone()
            assert (row["state"], row["summary"]) == (expected, "{}")


@pytest.mark.parametrize(
    "files",
    [
        [],
        {"output.log": []},
        {"output.log": {"offset": -1, "content": ["x"]}},
        {"output.log": {"offset": "0", "content": ["x"]}},
        {"output.log": {"offset": True, "content": ["x"]}},
        {"output.log": {"offset": 2**63, "content": ["x"]}},
        {"output.log": {"offset": 0, "content": [1]}},
        {"output.log": {"offset": 0, "content": {"a": 1}}},
    ],
)
def test_malformed_chunks_are_refused(files: object) -> None:
    with fresh_run() as (database, run), pytest.raises(ClientException):  # noqa: SIM117
        with database.write() as connection:
            apply_message(connection, run, {"files": files or "text"})


def test_sampled_rows_have_all_keys() -> None:
    lines = ['{"_step": 0, "a": 1}', '{"_step": 1, "a": NaN, "b": {"c": 2}}', "broken", "[1]"]
    with fresh_run() as (database, run):
        with database.write() as connection:
            message = {"files": {"wandb-history.jsonl": {"offset": 0, "content": lines}}}
            apply_message(connection, run, message)
        with database.read() as connection:
            rows = sampled(connection, run["id"], {"keys": ["_step", "a", "b.c"], "samples": 9})
            assert rows == [{"_step": 1, "a": "NaN", "b.c": 2}]
            # SDKs from 0.31 name the last step; older ones the step after it.
            for last, samples in ((0, 1), (1, 1000)):
                spec = {"keys": ["a"], "minStep": 0, "maxStep": last, "samples": samples}
                assert sampled(connection, run["id"], spec) == [{"a": 1}]


@given(st.integers(0, 400), st.integers(0, 60))
def test_samples_are_even_and_keep_the_ends(count: int, samples: int) -> None:
    picked = sample_evenly(list(range(count)), samples)
    assert len(picked) == min(count, samples)
    assert picked == sorted(set(picked))
    if count and samples >= 2:
        assert (picked[0], picked[-1]) == (0, count - 1)
