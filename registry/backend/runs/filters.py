"""Mongo-style filters and orders over runs, as `Api.runs(filters=, order=)` sends them.

A filter is compiled to a predicate over a `RunView`, which parses a run's documents only when
a filter looks at them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

from registry.backend.clock import parse_text
from registry.backend.graphql.errors import OperationError
from registry.backend.runs.documents import config_values, value_at

Predicate = Callable[["RunView"], bool]
Test = Callable[[Any], bool]

_COLUMNS = {
    "id": "id",
    "name": "name",
    "displayName": "display_name",
    "group": "run_group",
    "jobType": "job_type",
    "notes": "notes",
    "description": "description",
    "commit": "commit_sha",
    "host": "host",
    "program": "program",
    "sweep": "sweep",
    "sweepName": "sweep",
}
_TIMES = {"createdAt": "created_at", "updatedAt": "updated_at", "heartbeatAt": "heartbeat_at"}
_SPELLINGS = {
    "display_name": "displayName",
    "job_type": "jobType",
    "created_at": "createdAt",
    "updated_at": "updatedAt",
    "heartbeat_at": "heartbeatAt",
    "sweep_name": "sweepName",
    "run_name": "name",
    "username": "user",
}


class RunView:
    """One run as filters see it.

    Args:
        row: the run's row (a mapping by column).
        state: its state now.
        user: name of the user who owns it.
    """

    def __init__(self, row: Any, state: str, user: str) -> None:
        self.row = row
        self._state = state
        self._user = user

    @cached_property
    def _config(self) -> dict[str, Any]:
        return config_values(json.loads(self.row["config"]))

    @cached_property
    def _summary(self) -> dict[str, Any]:
        summary: dict[str, Any] = json.loads(self.row["summary"])
        return summary

    @cached_property
    def _keys(self) -> dict[str, Any]:
        keys: dict[str, Any] = json.loads(self.row["history_keys"])
        return keys

    def value(self, path: str) -> Any:
        """Return what a filter's path means for this run; None when it has no such thing.

        Times are whole seconds, as the API shows them, so that a time read from it is equal.
        """
        head, _, rest = path.partition(".")
        head = _SPELLINGS.get(head, head)
        if head in _COLUMNS and not rest:
            return self.row[_COLUMNS[head]]
        if head in _TIMES and not rest:
            return parse_text(self.row[_TIMES[head]]).replace(microsecond=0)
        if head == "state":
            return self._state
        if head == "user":
            return self._user
        return self._document_value(head, rest)

    def order_value(self, path: str) -> Any:
        """Return what an order's path means: as for filters, but times to the microsecond."""
        column = _TIMES.get(_SPELLINGS.get(path, path))
        return parse_text(self.row[column]) if column else self.value(path)

    def _document_value(self, head: str, rest: str) -> Any:
        if head == "tags":
            tags = json.loads(self.row["tags"])
            return (rest in tags) if rest else tags
        if head == "config":
            return _config_value(self._config, rest)
        if head in ("summary_metrics", "summaryMetrics", "summary"):
            return value_at(self._summary, rest)
        if head == "keys_info" and rest.startswith("keys."):
            return self._keys.get(rest.removeprefix("keys."))
        return None


def _config_value(config: Mapping[str, Any], path: str) -> Any:
    found = value_at(config, path)
    if found is None and ".value" in f"{path}.":
        # The server's own spelling: `config.lr.value`, `config.optimizer.value.lr`.
        found = value_at(config, re.sub(r"\.value(?=\.|$)", "", path, count=1))
    return found


def compile_filter(source: object) -> Predicate:
    """Return the predicate of a filter, given as an object or as JSON text.

    Raises:
        OperationError: not an object, or with an operator that is not known.
    """
    if isinstance(source, str):
        try:
            source = json.loads(source) if source.strip() else {}
        except (ValueError, RecursionError) as error:
            raise OperationError("The filter is not JSON.") from error
    return _group(source or {})


def _group(source: object) -> Predicate:
    if not isinstance(source, Mapping):
        raise OperationError("A filter must be a JSON object.")
    parts = [_clause(str(key), value) for key, value in source.items()]
    return lambda run: all(part(run) for part in parts)


def _clause(key: str, value: Any) -> Predicate:
    if key == "$not":
        inner = _group(value)
        return lambda run: not inner(run)
    if key in ("$and", "$or", "$nor"):
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise OperationError(f"{key} needs a list of filters.")
        parts = [_group(item) for item in value if item is not None]
        if key == "$and":
            return lambda run: all(part(run) for part in parts)
        if key == "$or":
            # An empty choice excludes nothing, as W&B's own interface sends it.
            return lambda run: not parts or any(part(run) for part in parts)
        return lambda run: not any(part(run) for part in parts)
    if key.startswith("$"):
        raise OperationError(f"Unknown filter operator {key}.")
    test = _condition(value)
    return lambda run: test(run.value(key))


def _condition(value: Any) -> Test:
    if not isinstance(value, Mapping) or not any(str(key).startswith("$") for key in value):
        return lambda found: _equal(found, value)
    tests = [
        _operator(str(key), operand, value) for key, operand in value.items() if key != "$options"
    ]
    return lambda found: all(test(found) for test in tests)


def _operator(name: str, operand: Any, condition: Mapping[str, Any]) -> Test:
    if name == "$not":
        inner = _condition(operand)
        return lambda found: not inner(found)
    if name == "$exists":
        return lambda found: (found is not None) == bool(operand)
    if name == "$regex":
        return _regex(operand, str(condition.get("$options") or ""))
    make = _OPERATORS.get(name)
    if make is None:
        raise OperationError(f"Unknown filter operator {name}.")
    if name in ("$in", "$nin", "$all") and not isinstance(operand, list):
        raise OperationError(f"{name} needs a list.")
    return make(operand)


def _regex(pattern: Any, options: str) -> Test:
    try:
        compiled = re.compile(str(pattern), re.IGNORECASE if "i" in options else 0)
    except re.error as error:
        raise OperationError(f"{pattern!r} is not a regular expression: {error}.") from error

    def matches(found: Any) -> bool:
        values = found if isinstance(found, list) else [found]
        return any(isinstance(value, str) and compiled.search(value) for value in values)

    return matches


def _equal(found: Any, wanted: Any) -> bool:
    if isinstance(found, list) and not isinstance(wanted, list):
        return (wanted is None and not found) or any(_equal(item, wanted) for item in found)
    if isinstance(found, datetime):
        return found == _moment(wanted)
    if isinstance(found, bool) != isinstance(wanted, bool):
        return False
    return bool(found == wanted)


def _moment(value: Any) -> datetime | None:
    try:
        return parse_text(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _compare(found: Any, wanted: Any) -> int | None:
    """Return the sign of `found - wanted`, None when the two cannot be compared."""
    if isinstance(found, datetime):
        wanted = _moment(wanted)
    numbers = isinstance(found, int | float) and isinstance(wanted, int | float)
    alike = isinstance(found, str | datetime) and type(found) is type(wanted)
    if not (numbers or alike):
        return None
    return int(found > wanted) - int(found < wanted)


def _comparison(accepts: Callable[[int], bool]) -> Callable[[Any], Test]:
    def make(wanted: Any) -> Test:
        def test(found: Any) -> bool:
            sign = _compare(found, wanted)
            # NaN compares as equal to everything by sign alone; it is equal to nothing.
            return sign is not None and found == found and accepts(sign)

        return test

    return make


def _one_of(wanted: list[Any]) -> Test:
    return lambda found: any(_equal(found, item) for item in wanted)


_OPERATORS: Mapping[str, Callable[[Any], Test]] = {
    "$eq": lambda wanted: lambda found: _equal(found, wanted),
    "$ne": lambda wanted: lambda found: not _equal(found, wanted),
    "$gt": _comparison(lambda sign: sign > 0),
    "$gte": _comparison(lambda sign: sign >= 0),
    "$lt": _comparison(lambda sign: sign < 0),
    "$lte": _comparison(lambda sign: sign <= 0),
    "$in": _one_of,
    "$nin": lambda wanted: lambda found: not _one_of(wanted)(found),
    "$all": lambda wanted: lambda found: all(_equal(found, item) for item in wanted),
}


def order_runs(runs: Sequence[RunView], order: str | None) -> list[RunView]:
    """Return the runs ordered by `[+|-]path[,...]`; runs without a value come last.

    The default is ascending creation, ties keep the order in which runs were made.
    """
    ordered = sorted(runs, key=lambda run: int(run.row["id"]))
    for term in reversed([part.strip() for part in (order or "+created_at").split(",")]):
        path = term.lstrip("+-")
        present = [(run.order_value(path), run) for run in ordered]
        missing = [run for value, run in present if value is None]
        there = [(value, run) for value, run in present if value is not None]
        there.sort(key=lambda pair: _sort_key(pair[0]), reverse=term.startswith("-"))
        ordered = [run for _, run in there] + missing
    return ordered


def _sort_key(value: Any) -> tuple[int, Any]:
    if isinstance(value, bool | int | float):
        return (0, float(value)) if value == value else (1, 0.0)
    if isinstance(value, datetime):
        return (2, value.timestamp())
    return (3, value if isinstance(value, str) else json.dumps(value, sort_keys=True))
