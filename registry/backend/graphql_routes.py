"""`POST /graphql` and the list of what clients asked for in vain."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from litestar import Response, get, post

from registry.backend.context import Context
from registry.backend.graphql.errors import OperationError
from registry.backend.graphql.executor import parse_operation
from registry.backend.json_text import parse_json
from registry.backend.responses import AnyRequest, backend_of, base_url_of, describe, require_key
from registry.backend.service import Backend
from registry.backend.streams import read_body


@post("/graphql", guards=[require_key], status_code=200)
async def graphql(request: AnyRequest) -> Response[bytes]:
    """Run one GraphQL operation, and encode its answer, in a thread."""
    backend = backend_of(request)
    body = await read_body(request, backend.settings.max_document_bytes)
    status, answer = await asyncio.to_thread(_answer_encoded, backend, base_url_of(request), body)
    return Response(answer, status_code=status, media_type="application/json")


@get("/_runport/unknown", guards=[require_key])
async def unknown_names(request: AnyRequest) -> dict[str, dict[str, int]]:
    """Return counts of unknown fields and arguments since the start."""
    return backend_of(request).unknown.counts()


def answer_operation(backend: Backend, base_url: str, body: bytes) -> tuple[int, dict[str, object]]:
    """Run the operation in `body` (JSON: query, variables, operationName).

    Returns:
        HTTP status and GraphQL answer. What the client did wrong is answered with 200 and
        `errors`, and so are our own defects, since the SDK repeats a 500 for many minutes.
    """
    try:
        document, variables, name = _parse(body)
        operation = parse_operation(document, name)
        with Context(backend, base_url, writable=operation.is_mutation) as context:
            return 200, {"data": backend.executor.execute(operation, variables, context)}
    except Exception as error:
        status, message = describe(error)
        if status in (403, 404, 500):
            status = 200
        return status, {"data": None, "errors": [{"message": message}]}


def _answer_encoded(backend: Backend, base_url: str, body: bytes) -> tuple[int, bytes]:
    status, answer = answer_operation(backend, base_url, body)
    return status, msgspec.json.encode(answer)


def _parse(body: bytes) -> tuple[str, dict[str, Any], str | None]:
    try:
        request = parse_json(body)
        document = request["query"]
        variables = request.get("variables") or {}
        name = request.get("operationName") or None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise OperationError("The body is no GraphQL request.", status=400) from error
    if not isinstance(document, str) or not isinstance(variables, dict):
        raise OperationError("The body is no GraphQL request.", status=400)
    return document, variables, name if isinstance(name, str) else None
