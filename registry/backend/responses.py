"""Errors as HTTP answers, and the checks that every route shares."""

from __future__ import annotations

import logging
import secrets
import sqlite3
from typing import Any

from litestar import Request, Response
from litestar.connection import ASGIConnection
from litestar.exceptions import HTTPException, NotAuthorizedException
from litestar.handlers.base import BaseRouteHandler

from registry.backend.graphql.errors import OperationError
from registry.backend.service import Backend
from registry.errors import (
    AuthError,
    IntegrityError,
    NotFoundError,
    RegistryError,
    StorageError,
    UsageError,
)

_LOG = logging.getLogger(__name__)

_STATUS: tuple[tuple[type[RegistryError], int], ...] = (
    (AuthError, 403),
    (NotFoundError, 404),
    (IntegrityError, 400),
    (UsageError, 400),
    (StorageError, 507),
    (RegistryError, 503),
)

AnyRequest = Request[Any, Any, Any]


def backend_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Backend:
    """Return the open backend that the application was started with."""
    backend: Backend = connection.app.state.backend
    return backend


def base_url_of(request: AnyRequest) -> str:
    """Return scheme and host by which the client reached us (the host was checked before)."""
    host = request.headers.get("host") or request.url.netloc
    return f"{request.url.scheme}://{host}"


def path_parameter(request: AnyRequest, name: str) -> str:
    """Return a part of the request's path by its name in the route, "" if it is absent.

    Litestar 2.25 deprecates handlers' parameters for it, and its new form is missing before.
    """
    return str(request.path_params.get(name, ""))


def require_key(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Guard: refuse requests without the API key with 401."""
    if not backend_of(connection).credentials.accepts(connection.headers.get("authorization")):
        raise NotAuthorizedException("The API key is missing or wrong.")


def describe(error: Exception) -> tuple[int, str]:
    """Return HTTP status and public message of an error; unexpected ones stay opaque."""
    if isinstance(error, OperationError):
        return error.status, error.message
    if isinstance(error, HTTPException):
        return error.status_code, error.detail
    if isinstance(error, RegistryError):
        status = next(status for kind, status in _STATUS if isinstance(error, kind))
        return status, error.message
    if isinstance(error, sqlite3.OperationalError):
        _LOG.error("database: %s", error)
        if "full" in str(error):
            return 507, "The backend's disk is full."
        return 503, "The backend's database is busy or failing."
    incident = secrets.token_hex(4)
    _LOG.error("incident %s", incident, exc_info=error)
    return 500, f"Internal error, incident {incident}; the server's log says more."


def error_response(_: AnyRequest, error: Exception) -> Response[dict[str, object]]:
    """Answer a failed request as JSON; 401 also asks for the key."""
    status, message = describe(error)
    headers = {"WWW-Authenticate": 'Basic realm="api"'} if status == 401 else {}
    body: dict[str, object] = {"errors": [{"message": message}], "error": message}
    return Response(body, status_code=status, headers=headers)
