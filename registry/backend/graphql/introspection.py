"""As much introspection as old SDKs ask before they choose a spelling.

SDKs up to 0.25 ask which fields and arguments `Query`, `Mutation` and input types have. The
answer is read off the declared fields, so it is true by construction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry.backend.graphql.fields import Field, Schema, camel_case


def introspect(schema: Schema, name: str, arguments: Mapping[str, Any]) -> object:
    """Answer `__type(name:)` and `__schema`; anything else is null."""
    if name == "__type":
        return describe_type(schema, str(arguments.get("name")))
    if name == "__schema":
        return {
            "queryType": describe_type(schema, "Query"),
            "mutationType": describe_type(schema, "Mutation"),
            "types": [describe_type(schema, typename) for typename in sorted(schema)],
        }
    return None


def describe_type(schema: Schema, typename: str) -> dict[str, object] | None:
    """Return name, fields and input fields of a type, or None when it is not known."""
    if typename in schema and typename.endswith("Input"):
        names = [{"name": name} for name in schema[typename]]
        return {"name": typename, "kind": "INPUT_OBJECT", "fields": None, "inputFields": names}
    if typename in schema:
        fields = [_describe_field(name, field) for name, field in schema[typename].items()]
        return {"name": typename, "kind": "OBJECT", "fields": fields, "inputFields": None}
    mutation = typename.removesuffix("Input")
    name = mutation[:1].lower() + mutation[1:]
    field = schema.get("Mutation", {}).get(name)
    if field is None or mutation == typename:
        return None
    inputs = [{"name": camel_case(a)} for a in sorted(field.arguments)]
    return {"name": typename, "kind": "INPUT_OBJECT", "fields": None, "inputFields": inputs}


def _describe_field(name: str, field: Field) -> dict[str, object]:
    arguments = [{"name": camel_case(a)} for a in sorted(field.arguments)]
    return {"name": name, "args": arguments}
