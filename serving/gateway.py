"""The outermost ring of the HTTP server: who may ask, under which id, and what the log says.

Plain ASGI around the application, so that every answer passes it, also those for paths that do not
exist. Knows nothing of models.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import structlog

from serving.config import ServeConfig
from serving.errors import (
    ForbiddenError,
    MisdirectedRequestError,
    ServingError,
    UnauthorizedError,
)
from serving.keys import KeyRing
from serving.problem import CONTENT_TYPE, internal_error, problem_body, problem_headers

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

FACTS = "runport.facts"
"""Scope key: a dict that handlers fill with what the access log should say."""
REQUEST_ID = "runport.request_id"
"""Scope key: the id of this request."""

OPEN_PATHS = frozenset({"/livez", "/readyz"})
"""Need no key: orchestrators have none."""

QUIET_PATHS = OPEN_PATHS | {"/metrics"}
"""Are logged at debug level only."""

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_GOOD_ID = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?\Z")

_log = structlog.get_logger(__name__)


class Gateway:
    """Checks Host, Origin and key; gives ids; writes the access log; hides foreign errors.

    Args:
        app: the application inside.
        config: which hosts are ours.
        keys: None when no key is asked for.
    """

    def __init__(self, app: App, config: ServeConfig, keys: KeyRing | None) -> None:
        self._app = app
        self._keys = keys
        self._hosts = _host_names(config)
        self.draining = False
        self.accepted = 0
        self.answered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; anything that is no HTTP request is left unanswered."""
        if scope["type"] != "http":
            return
        headers = _headers(scope)
        exchange = _Exchange(scope, headers, send, self)
        self.accepted += 1
        try:
            self._check(scope, headers)
            await self._app(scope, receive, exchange.send)
        except ServingError as error:
            await exchange.fail(error)
        except Exception:
            _log.exception("http.failed", request_id=exchange.request_id)
            await exchange.fail(internal_error())
        finally:
            self.answered += exchange.status is not None
            exchange.log()

    def _check(self, scope: Scope, headers: dict[str, str]) -> None:
        host = headers.get("host", "")
        if self._hosts is not None and _name_of(host) not in self._hosts:
            raise MisdirectedRequestError(
                "The Host header names no address of this server.",
                hint="Ask by 127.0.0.1 or localhost, or start the server with --allowed-host.",
            )
        origin = headers.get("origin")
        if origin is not None and origin not in {f"http://{host}", f"https://{host}"}:
            raise ForbiddenError(
                "Requests from pages of another origin are refused.",
                hint="Call this server from a program, or from a page that it serves.",
            )
        if self._keys is not None and scope["path"] not in OPEN_PATHS:
            self._check_key(self._keys, scope, headers)

    def _check_key(self, keys: KeyRing, scope: Scope, headers: dict[str, str]) -> None:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        scopes = keys.scopes(key.strip()) if scheme.lower() == "bearer" else frozenset()
        if not scopes:
            raise UnauthorizedError(
                "A valid API key is needed.", hint="Send it as `Authorization: Bearer <key>`."
            )
        if _needed_scope(scope) not in scopes:
            raise ForbiddenError(
                f"This key lacks the scope {_needed_scope(scope)!r}.",
                hint="Ask the operator for another key.",
            )


class _Exchange:
    """One request and its answer: headers that every answer carries, and the log line."""

    def __init__(self, scope: Scope, headers: dict[str, str], send: Send, gateway: Gateway) -> None:
        self._scope = scope
        self._send = send
        self._gateway = gateway
        self._started = time.perf_counter()
        self.status: int | None = None
        given = headers.get("x-request-id", "")
        self.request_id = given if _GOOD_ID.match(given) else secrets.token_hex(12)
        scope[REQUEST_ID] = self.request_id
        scope[FACTS] = {}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            headers += [
                (b"x-request-id", self.request_id.encode()),
                (b"x-content-type-options", b"nosniff"),
                (b"cache-control", b"no-store"),
            ]
            names = {name.lower() for name, _ in headers}
            if b"server-timing" not in names:
                headers.append((b"server-timing", f"total;dur={self._spent_ms():.2f}".encode()))
            if self._gateway.draining and b"connection" not in names:
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        await self._send(message)

    async def fail(self, error: ServingError) -> None:
        if self.status is not None:
            return
        body = problem_body(error, self.request_id)
        pairs = [("content-type", CONTENT_TYPE), ("content-length", str(len(body)))]
        headers = [(name.encode(), value.encode()) for name, value in pairs]
        headers += [(name.encode(), value.encode()) for name, value in problem_headers(error)]
        start = {"type": "http.response.start", "status": error.status, "headers": headers}
        await self.send(start)
        await self.send({"type": "http.response.body", "body": body})

    def log(self) -> None:
        # Probes come every few seconds for ever and would drown the rest.
        say = _log.debug if self._scope["path"] in QUIET_PATHS else _log.info
        say(
            "http.request",
            request_id=self.request_id,
            method=self._scope["method"],
            path=self._scope["path"][:256],
            status=self.status,
            ms=round(self._spent_ms(), 2),
            **self._scope[FACTS],
        )

    def _spent_ms(self) -> float:
        return (time.perf_counter() - self._started) * 1e3


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def _needed_scope(scope: Scope) -> str:
    if scope["path"].startswith("/admin/"):
        return "admin"
    return "predict" if scope["method"] == "POST" else "read"


def _host_names(config: ServeConfig) -> frozenset[str] | None:
    """Return the names that Host may have; None for any, where a key protects the server."""
    if not config.loopback_only and not config.allowed_hosts:
        return None
    ours = config.host if ":" not in config.host else f"[{config.host.strip('[]')}]"
    names = {ours, *config.allowed_hosts, *_LOOPBACK_NAMES}
    return frozenset(name.lower() for name in names)


def _name_of(host: str) -> str:
    found = _HOST.match(host)
    return found.group(1).lower() if found else ""
