"""Run one GraphQL operation against declared fields, as leniently as SDK versions differ.

Nothing is validated against a schema: unknown fields give null, unknown arguments are dropped,
both are counted. Operation names mean nothing. Fragment type conditions count only for the
types in `DISTINGUISHED`, where SDKs rely on them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from graphql import GraphQLError, parse
from graphql.language import ast

from registry.backend.graphql.errors import OperationError
from registry.backend.graphql.fields import ROOTS, Node, Schema, snake_case
from registry.backend.graphql.introspection import introspect
from registry.backend.graphql.unknown import UnknownNames

DISTINGUISHED = frozenset({"ArtifactSequence", "ArtifactPortfolio", "Run", "User"})
MAX_TOKENS = 20_000
MAX_DEPTH = 48

Variables = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Operation:
    """A parsed operation with its fragments."""

    definition: Any
    fragments: Mapping[str, Any]

    @property
    def is_mutation(self) -> bool:
        """Tell whether the operation may write."""
        return bool(self.definition.operation.value == "mutation")


@lru_cache(maxsize=512)
def parse_operation(text: str, name: str | None = None) -> Operation:
    """Parse a document and choose its operation: the one called `name`, else the first.

    Raises:
        OperationError: the text is no GraphQL or holds no operation.
    """
    try:
        document = parse(text, no_location=True, max_tokens=MAX_TOKENS)
    except (GraphQLError, RecursionError) as error:
        detail = getattr(error, "message", "the document is nested too deeply")
        raise OperationError(f"Not a GraphQL document: {detail}", status=400) from error
    operations = [d for d in document.definitions if isinstance(d, ast.OperationDefinitionNode)]
    if not operations:
        raise OperationError("The document holds no operation.", status=400)
    named = [d for d in operations if d.name and d.name.value == name]
    fragments = {
        d.name.value: d for d in document.definitions if isinstance(d, ast.FragmentDefinitionNode)
    }
    return Operation((named or operations)[0], fragments)


class Executor:
    """Resolves operations; holds no state but the counts.

    Args:
        schema: the declared fields.
        unknown: where unknown names are counted.
    """

    def __init__(self, schema: Schema, unknown: UnknownNames) -> None:
        self._schema = schema
        self._unknown = unknown

    def execute(self, operation: Operation, variables: Variables, context: object) -> object:
        """Return the operation's `data`.

        Raises:
            OperationError: a resolver refused, or the operation is malformed.
        """
        root = "Mutation" if operation.is_mutation else "Query"
        run = _Run(self._schema, self._unknown, operation, _defaults(operation, variables), context)
        return run.fields_of(root, None, [operation.definition.selection_set], depth=0)


def _defaults(operation: Operation, given: Variables) -> Variables:
    values = dict(given)
    for definition in operation.definition.variable_definitions or ():
        name = definition.variable.name.value
        if name not in values and definition.default_value is not None:
            values[name] = _value(definition.default_value, {})
    return values


class _Run:
    """One execution; resolves depth first, in order."""

    def __init__(
        self,
        schema: Schema,
        unknown: UnknownNames,
        operation: Operation,
        variables: Variables,
        context: object,
    ) -> None:
        self._schema = schema
        self._unknown = unknown
        self._fragments = operation.fragments
        self._variables = variables
        self._context = context

    def fields_of(
        self, typename: str, source: object, selections: Sequence[Any], *, depth: int
    ) -> dict[str, object]:
        if depth > MAX_DEPTH:
            raise OperationError("The operation is nested too deeply.", status=400)
        grouped: dict[str, list[Any]] = {}
        for selection_set in selections:
            for node in self._selected(typename, selection_set, depth):
                key = node.alias.value if node.alias else node.name.value
                grouped.setdefault(key, []).append(node)
        return {
            key: self._complete(typename, source, nodes, depth) for key, nodes in grouped.items()
        }

    def _selected(self, typename: str, selection_set: Any, depth: int) -> Iterator[Any]:
        if depth > MAX_DEPTH:
            raise OperationError("The operation's fragments are nested too deeply.", status=400)
        for node in selection_set.selections:
            if not self._included(node):
                continue
            if isinstance(node, ast.FieldNode):
                yield node
                continue
            fragment = node
            if isinstance(node, ast.FragmentSpreadNode):
                fragment = self._fragments.get(node.name.value)
                if fragment is None:
                    raise OperationError(f"Unknown fragment {node.name.value}.", status=400)
            condition = fragment.type_condition.name.value if fragment.type_condition else typename
            if condition in DISTINGUISHED and condition != typename:
                continue
            yield from self._selected(typename, fragment.selection_set, depth + 1)

    def _included(self, node: Any) -> bool:
        for directive in node.directives or ():
            flag = next((_value(a.value, self._variables) for a in directive.arguments), None)
            if directive.name.value == "include" and not flag:
                return False
            if directive.name.value == "skip" and flag:
                return False
        return True

    def _complete(self, typename: str, source: object, nodes: Sequence[Any], depth: int) -> object:
        node = nodes[0]
        name = node.name.value
        if name == "__typename":
            return self._public_name(typename)
        value = self._resolve(typename, source, node)
        selections = [n.selection_set for n in nodes if n.selection_set]
        fallback = f"{typename}.{name}"
        if typename == "Mutation":
            fallback = f"{name[:1].upper()}{name[1:]}Payload"
        return self._shape(value, selections, fallback, depth)

    def _public_name(self, typename: str) -> object:
        """Return what clients see: types that differ only inside declare a `__typename`."""
        field = self._schema.get(typename, {}).get("__typename")
        return field.resolve(self._context, None) if field else typename

    def _shape(
        self, value: object, selections: Sequence[Any], fallback_type: str, depth: int
    ) -> object:
        if value is None or not selections:
            return value
        if isinstance(value, Node):
            return self.fields_of(value.typename, value.source, selections, depth=depth + 1)
        if isinstance(value, Mapping):
            typename = str(value.get("__typename") or fallback_type)
            return self.fields_of(typename, value, selections, depth=depth + 1)
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):
            return [self._shape(item, selections, fallback_type, depth) for item in value]
        return value

    def _resolve(self, typename: str, source: object, node: Any) -> object:
        name = node.name.value
        given = self._arguments(node)
        if name.startswith("__") and typename in ROOTS:
            return introspect(self._schema, name, given)
        field = self._schema.get(typename, {}).get(name)
        if field is None:
            if isinstance(source, Mapping) and name in source:
                return source[name]
            self._unknown.field(typename, name)
            return None
        if typename == "Mutation" and isinstance(given.get("input"), Mapping):
            spread = given.pop("input")
            given = {**given, **spread}
        known = {}
        for argument, value in given.items():
            key = snake_case(argument)
            if key in field.arguments or field.takes_any:
                known[key] = value
            else:
                self._unknown.argument(typename, name, argument)
        if typename in ROOTS:
            return field.resolve(self._context, **known)
        return field.resolve(self._context, source, **known)

    def _arguments(self, node: Any) -> dict[str, Any]:
        return {
            argument.name.value: _value(argument.value, self._variables)
            for argument in node.arguments or ()
            if not _is_absent(argument.value, self._variables)
        }


def _is_absent(node: Any, variables: Variables) -> bool:
    return isinstance(node, ast.VariableNode) and node.name.value not in variables


def _value(node: Any, variables: Variables) -> Any:
    if isinstance(node, ast.VariableNode):
        return variables.get(node.name.value)
    if isinstance(node, ast.NullValueNode):
        return None
    if isinstance(node, ast.IntValueNode):
        return int(node.value)
    if isinstance(node, ast.FloatValueNode):
        return float(node.value)
    if isinstance(node, ast.ListValueNode):
        return [_value(item, variables) for item in node.values]
    if isinstance(node, ast.ObjectValueNode):
        return {
            item.name.value: _value(item.value, variables)
            for item in node.fields
            if not _is_absent(item.value, variables)
        }
    return node.value
