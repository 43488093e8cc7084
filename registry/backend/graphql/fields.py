"""Declaring what can be asked: resolvers by type and field, found by name alone.

A resolver is called as `resolver(context, source, **arguments)`, those of `Query` and `Mutation`
without `source`. Its keyword-only parameters are the arguments it knows, in snake case
(`entityName` -> `entity_name`, `artifactID` -> `artifact_id`). A mutation's `input` object is
spread into arguments.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

Resolver = Callable[..., object]
_R = TypeVar("_R", bound=Resolver)

ROOTS = frozenset({"Query", "Mutation"})
_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@dataclass(frozen=True, slots=True)
class Node:
    """A value with fields: the name of its GraphQL type and what its resolvers work on."""

    typename: str
    source: Any


@dataclass(frozen=True, slots=True)
class Field:
    """One resolver and the arguments (snake case) that it knows.

    Attributes:
        resolve: the resolver.
        arguments: names of its keyword-only parameters.
        takes_any: it also has `**arguments` and is given all there are.
    """

    resolve: Resolver
    arguments: frozenset[str]
    takes_any: bool = False


class FieldSet:
    """Fields that one module declares with decorators; `merge` makes them a schema."""

    def __init__(self) -> None:
        self.by_type: dict[str, dict[str, Field]] = {}

    def on(self, typename: str, *names: str) -> Callable[[_R], _R]:
        """Declare the resolver of field(s) `names` of `typename`."""

        def declare(resolver: _R) -> _R:
            parameters = inspect.signature(resolver).parameters.values()
            arguments = frozenset(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
            takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
            for name in names:
                self._add(typename, name, Field(resolver, arguments, takes_any))
            return resolver

        return declare

    def query(self, *names: str) -> Callable[[_R], _R]:
        """Declare a field of the query root: `resolver(context, **arguments)`."""
        return self.on("Query", *names)

    def mutation(self, *names: str) -> Callable[[_R], _R]:
        """Declare a mutation: `resolver(context, **input)`."""
        return self.on("Mutation", *names)

    def columns(self, typename: str, columns: Mapping[str, str]) -> None:
        """Declare fields that are keys of the source as they are: `{field: key}`."""
        for name, key in columns.items():
            self._add(typename, name, Field(_column(key), frozenset()))

    def input_type(self, typename: str, *names: str) -> None:
        """Declare the fields of an object inside a mutation's input, for introspection alone.

        `typename` ends in `Input`. What a mutation itself takes is read off its resolver.
        """
        for name in names:
            self._add(typename, name, Field(_constant(None), frozenset()))

    def constants(self, typename: str, values: Mapping[str, object]) -> None:
        """Declare fields that have the same value on every object of the type."""
        for name, value in values.items():
            self._add(typename, name, Field(_constant(value), frozenset()))

    def _add(self, typename: str, name: str, field: Field) -> None:
        fields = self.by_type.setdefault(typename, {})
        if name in fields:
            raise ValueError(f"{typename}.{name} is declared twice.")
        fields[name] = field


Schema = Mapping[str, Mapping[str, Field]]


def merge(sets: Iterable[FieldSet]) -> Schema:
    """Return all fields of all sets by type.

    Raises:
        ValueError: two sets declare the same field.
    """
    merged = FieldSet()
    for fields in sets:
        for typename, by_name in fields.by_type.items():
            for name, field in by_name.items():
                merged._add(typename, name, field)
    return merged.by_type


@lru_cache(maxsize=4096)
def snake_case(name: str) -> str:
    """Return `artifactID` as `artifact_id`."""
    return _WORD_START.sub("_", name).lower()


@lru_cache(maxsize=4096)
def camel_case(name: str) -> str:
    """Return `artifact_id` as `artifactID`, W&B's habit for ids."""
    first, *rest = name.split("_")
    return first + "".join("ID" if word == "id" else word.capitalize() for word in rest)


def _column(key: str) -> Resolver:
    def resolve(_context: object, source: Any) -> object:
        return source[key]

    return resolve


def _constant(value: object) -> Resolver:
    def resolve(_context: object, *_source: object) -> object:
        return value

    return resolve
