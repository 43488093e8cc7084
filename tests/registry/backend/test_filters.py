"""Mongo-style filters and orders over runs."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.backend.graphql.errors import OperationError
from registry.backend.runs.filters import RunView, compile_filter, order_runs

ROWS = [
    {
        "id": 1,
        "name": "aaa",
        "display_name": "first run",
        "run_group": "g",
        "job_type": "train",
        "notes": None,
        "description": None,
        "commit_sha": None,
        "host": "h",
        "program": None,
        "sweep": None,
        "config": json.dumps(
            {
                "lr": {"value": 0.1},
                "optim": {"value": {"name": "adam", "beta": 0.9}},
                "flag": {"value": True},
                "list": {"value": [1, 2]},
                "a.b": {"value": 5},
            }
        ),
        "summary": json.dumps({"loss": 0.5, "eval": {"f1": 0.8}, "eval/f1": 0.9}),
        "history_keys": json.dumps({"loss": {"number": 3}}),
        "tags": json.dumps(["x", "y"]),
        "created_at": "2026-01-01T00:00:00.000000Z",
        "updated_at": "2026-01-01T00:00:00.000000Z",
        "heartbeat_at": "2026-01-01T00:00:00.000000Z",
    },
]
ROWS.append(
    {
        **ROWS[0],
        "id": 2,
        "name": "bbb",
        "display_name": "second run",
        "run_group": None,
        "job_type": "eval",
        "config": json.dumps({"lr": {"value": 0.01}, "_wandb": {"value": {"t": {}}}}),
        "summary": json.dumps({"loss": float("nan")}),
        "history_keys": "{}",
        "tags": "[]",
        "created_at": "2026-02-01T12:30:00.500000Z",
    }
)
ROWS.append({**ROWS[1], "id": 3, "name": "ccc", "summary": '{"loss": 0.1}', "config": "{}"})
STATES = ["finished", "running", "crashed"]
VIEWS = [RunView(row, state, "local") for row, state in zip(ROWS, STATES, strict=True)]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({}, [1, 2, 3]),
        (None, [1, 2, 3]),
        ("", [1, 2, 3]),
        ('{"state": "running"}', [2]),
        ({"state": {"$in": ["running", "crashed"]}}, [2, 3]),
        ({"state": {"$ne": "running"}}, [1, 3]),
        ({"config.lr": 0.1}, [1]),
        ({"config.lr.value": 0.1}, [1]),
        ({"config.lr": {"$gt": 0.001, "$lt": 0.05}}, [2]),
        ({"config.optim.name": "adam"}, [1]),
        ({"config.optim.value.name": "adam"}, [1]),
        ({"config.optim": {"name": "adam", "beta": 0.9}}, [1]),
        ({"config.a.b": 5}, [1]),
        ({"config.flag": True}, [1]),
        ({"config.flag": 1}, []),
        ({"config.list": 2}, [1]),
        ({"config.lr": {"$exists": True}}, [1, 2]),
        ({"config.lr": {"$exists": False}}, [3]),
        ({"config.lr": None}, [3]),
        ({"summary_metrics.loss": {"$lte": 0.5}}, [1, 3]),
        ({"summaryMetrics.eval.f1": {"$gte": 0.8}}, [1]),
        ({"summary_metrics.eval/f1": 0.9}, [1]),
        ({"tags": "x"}, [1]),
        ({"tags": {"$in": ["y", "z"]}}, [1]),
        ({"tags": {"$nin": ["y", "z"]}}, [2, 3]),
        ({"tags": {"$all": ["x", "y"]}}, [1]),
        ({"$or": [{"tags": None}, {"tags": {"$ne": "x"}}]}, [2, 3]),
        ({"display_name": {"$regex": "^second"}}, [2, 3]),
        ({"displayName": {"$regex": "^SECOND", "$options": "i"}}, [2, 3]),
        ({"display_name": {"$not": {"$regex": "^second"}}}, [1]),
        ({"group": "g"}, [1]),
        ({"group": None}, [2, 3]),
        ({"jobType": "eval", "state": "crashed"}, [3]),
        ({"job_type": {"$eq": "train"}}, [1]),
        ({"username": "local"}, [1, 2, 3]),
        ({"createdAt": {"$gt": "2026-01-15"}}, [2, 3]),
        ({"created_at": {"$lt": "2026-01-15T00:00:00+02:00"}}, [1]),
        ({"createdAt": {"$gt": "no time"}}, []),
        ({"keys_info.keys.loss": {"$exists": True}}, [1]),
        ({"$and": [{"config.lr": 0.1}, {"state": "finished"}]}, [1]),
        ({"$or": [{"name": "aaa"}, {"name": "ccc"}]}, [1, 3]),
        ({"$or": []}, [1, 2, 3]),
        ({"$nor": [{"name": "aaa"}]}, [2, 3]),
        ({"$not": {"name": "aaa"}}, [2, 3]),
        ({"config.lr": {"$gt": "text"}}, []),
        ({"no_such_field": 1}, []),
    ],
)
def test_filter(source: object, expected: list[int]) -> None:
    accepts = compile_filter(source)
    assert [view.row["id"] for view in VIEWS if accepts(view)] == expected


@pytest.mark.parametrize(
    "source",
    [
        "[1]",
        "{",
        {"$bad": 1},
        {"config.lr": {"$bad": 1}},
        {"$and": {"name": "a"}},
        {"name": {"$in": "abc"}},
        {"name": {"$regex": "("}},
        {"$or": ["text"]},
    ],
)
def test_malformed_filters_are_refused(source: object) -> None:
    with pytest.raises(OperationError):
        compile_filter(source)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (None, [1, 2, 3]),
        ("", [1, 2, 3]),
        ("+created_at", [1, 2, 3]),
        ("-created_at", [2, 3, 1]),
        ("-name", [3, 2, 1]),
        ("+config.lr", [2, 1, 3]),
        ("-config.lr.value", [1, 2, 3]),
        ("+summary_metrics.eval.f1", [1, 2, 3]),
        ("-createdAt,-name", [3, 2, 1]),
        ("state", [3, 1, 2]),
    ],
)
def test_order(order: str | None, expected: list[int]) -> None:
    assert [view.row["id"] for view in order_runs(VIEWS, order)] == expected


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=4) | st.integers(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "$and",
                        "$or",
                        "$not",
                        "$in",
                        "$gt",
                        "$regex",
                        "config.lr",
                        "tags",
                        "x",
                        "$exists",
                    ]
                ),
                inner,
                max_size=3,
            )
        ),
        max_leaves=12,
    )
)
def test_any_filter_is_answered_or_refused(source: object) -> None:
    try:
        accepts = compile_filter(source)
    except OperationError:
        return
    for view in VIEWS:
        assert accepts(view) in (True, False)
