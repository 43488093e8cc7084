"""Filters and orders of registry searches."""

from __future__ import annotations

from typing import Any

import pytest

from registry.backend.artifacts.search import matches, ordered, parse_filter
from registry.errors import UsageError

RECORD = {
    "name": "bert",
    "tag": ["a", "b"],
    "version": 3,
    "description": None,
    "metadata": {"f1": 0.8, "eval/f1": 0.7, "deep": {"er": [1, 2]}},
}


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"name": "bert"},
        {"name": {"$regex": "^b"}},
        {"name": {"$contains": "er"}},
        {"name": {"$in": ["x", "bert"]}, "version": {"$gte": 3, "$lt": 4}},
        {"tag": "a"},
        {"tag": {"$all": ["a", "b"]}},
        {"tag": {"$size": 2}},
        {"tag": {"$not": {"$in": ["c"]}}},
        {"description": None},
        {"description": {"$exists": False}},
        {"metadata.f1": {"$gt": 0.5}},
        {"metadata.eval/f1": 0.7},
        {"metadata.deep.er": 2},
        {"$or": [{"name": "x"}, {"version": 3}]},
        {"$and": [{"name": "bert"}, {"$nor": [{"tag": "c"}, {"version": 1}]}]},
        {"$not": {"name": "x"}},
        {"version": {"$ne": 4}, "name": {"$nin": ["x"]}},
    ],
)
def test_passes(wanted: dict[str, Any]) -> None:
    assert matches(RECORD, wanted)
    assert not matches(RECORD, {"$nor": [wanted]})


@pytest.mark.parametrize(
    "wanted",
    [
        {"name": {"$where": "1"}},
        {"name": {"$regex": "("}},
        {"name": {"$in": 3}},
        {"tag": {"$not": "a"}},
    ],
)
def test_refuses_what_it_does_not_know(wanted: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        matches(RECORD, wanted)


def test_numbers_and_text_do_not_compare() -> None:
    assert not matches(RECORD, {"name": {"$gt": 1}})
    assert not matches(RECORD, {"version": {"$gt": "1"}})


@pytest.mark.parametrize("text", ["{", "3", '"x"', "[]"])
def test_no_filter(text: str) -> None:
    with pytest.raises(UsageError):
        parse_filter(text)


def test_orders() -> None:
    items: list[dict[str, Any]] = [{"n": 2}, {"n": None}, {"n": 3}, {"n": 1}]
    ascending = [item["n"] for item in ordered(items, "n", lambda item: item, "-n")]
    assert ascending == [1, 2, 3, None]
    assert [item["n"] for item in ordered(items, None, lambda item: item, "-n")] == [3, 2, 1, None]
