"""MongoDB-style filters and `+name`/`-name` orders over records. Pure.

A record maps field names to values; a list value matches when one of its items does. A dotted
name (`metadata.f1`) reaches into nested mappings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from registry.errors import UsageError

Record = Mapping[str, Any]
_T = TypeVar("_T")
_MAX_PATTERN_LENGTH = 512


def parse_filter(text: str | None) -> Mapping[str, Any]:
    """Return the filter in JSON `text`; absent or empty text is the filter that all pass.

    Raises:
        UsageError: the text is no JSON object.
    """
    if not text:
        return {}
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError("The filter is no JSON.") from error
    if parsed is None:
        return {}
    if not isinstance(parsed, dict):
        raise UsageError("The filter is no JSON object.")
    return parsed


def matches(record: Record, wanted: Mapping[str, Any]) -> bool:
    """Tell whether a record passes a filter.

    Raises:
        UsageError: the filter has an operator that is not known.
    """
    return all(_clause(record, name, operand) for name, operand in wanted.items())


def _clause(record: Record, name: str, operand: Any) -> bool:
    match name:
        case "$and":
            return all(matches(record, item) for item in operand)
        case "$or":
            return any(matches(record, item) for item in operand)
        case "$nor":
            return not any(matches(record, item) for item in operand)
        case "$not":
            return not matches(record, operand)
    values = _values(record, name)
    if not isinstance(operand, Mapping):
        return _compare(values, "$eq", operand)
    return all(_compare(values, operator, item) for operator, item in operand.items())


def _values(record: Record, name: str) -> list[Any]:
    """Return the candidates for a field: nothing if absent, the items of a list."""
    found: Any = record
    remaining = name
    while remaining:
        if not isinstance(found, Mapping):
            return []
        head = remaining if remaining in found else remaining.partition(".")[0]
        if head not in found:
            return []
        found, remaining = found[head], remaining[len(head) + 1 :]
    if isinstance(found, Sequence) and not isinstance(found, str):
        return list(found)
    return [] if found is None else [found]


def _ordered(test: Callable[[Any, Any], bool]) -> Callable[[list[Any], Any], bool]:
    def compare(values: list[Any], operand: Any) -> bool:
        numeric = isinstance(operand, int | float)
        kinds = (int, float) if numeric else (type(operand),)
        return any(isinstance(value, kinds) and test(value, operand) for value in values)

    return compare


def _equal(values: list[Any], operand: Any) -> bool:
    if isinstance(operand, list):
        return values == operand
    return not values if operand is None else operand in values


def _regex(values: list[Any], operand: Any) -> bool:
    try:
        pattern = re.compile(str(operand)[:_MAX_PATTERN_LENGTH])
    except re.error as error:
        raise UsageError(f"{operand!r} is no regular expression.") from error
    return any(pattern.search(str(value)) for value in values)


def _negated(values: list[Any], operand: Any) -> bool:
    return not all(_compare(values, operator, item) for operator, item in operand.items())


_OPERATORS: Mapping[str, Callable[[list[Any], Any], bool]] = {
    "$eq": _equal,
    "$ne": lambda values, operand: not _equal(values, operand),
    "$in": lambda values, operand: any(_equal(values, item) for item in operand),
    "$nin": lambda values, operand: not any(_equal(values, item) for item in operand),
    "$gt": _ordered(lambda value, operand: bool(value > operand)),
    "$gte": _ordered(lambda value, operand: bool(value >= operand)),
    "$lt": _ordered(lambda value, operand: bool(value < operand)),
    "$lte": _ordered(lambda value, operand: bool(value <= operand)),
    "$exists": lambda values, operand: bool(values) == bool(operand),
    "$regex": _regex,
    "$contains": lambda values, operand: any(str(operand) in str(value) for value in values),
    "$all": lambda values, operand: all(item in values for item in operand),
    "$size": lambda values, operand: len(values) == operand,
    "$not": _negated,
}


def _compare(values: list[Any], operator: str, operand: Any) -> bool:
    compare = _OPERATORS.get(operator)
    if compare is None:
        raise UsageError(f"The filter operator {operator!r} is not known.")
    try:
        return compare(values, operand)
    except (TypeError, AttributeError) as error:
        raise UsageError(f"{operator} cannot be used with {operand!r}.") from error


def ordered(
    items: Iterable[_T], order: str | None, record_of: Callable[[_T], Record], default: str
) -> list[_T]:
    """Return items sorted by the first field of `order` (`+` or nothing ascends, `-` descends).

    Records without the field come last. Equal ones keep their order.
    """
    first = (order or default).split(",")[0].strip()
    name = _snake(first.lstrip("+-"))
    present: list[tuple[Any, _T]] = []
    absent: list[tuple[Any, _T]] = []
    for item in items:
        value = record_of(item).get(name)
        (absent if value is None else present).append((value, item))
    present.sort(key=lambda pair: pair[0], reverse=first.startswith("-"))
    return [item for _, item in [*present, *absent]]


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
