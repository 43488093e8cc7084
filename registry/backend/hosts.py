"""ASGI wrapper that refuses what a foreign web page makes a browser send to loopback."""

from __future__ import annotations

from litestar import Response
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from registry.backend.auth import is_loopback_host

_SAFE_METHODS = frozenset({"GET", "HEAD"})


class LoopbackHosts:
    """Lets requests through that name loopback and do not come from another origin.

    421 unless the `Host` header names loopback (DNS rebinding). 403 for anything that could
    change something and carries a foreign `Origin` (cross-site requests: a browser adds Basic
    credentials that it remembers, whoever wrote the page).
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        refusal = _refusal(scope) if scope["type"] == ScopeType.HTTP else None
        if refusal is None:
            await self._app(scope, receive, send)
            return
        status, text = refusal
        response: Response[str] = Response(text, status_code=status, media_type="text/plain")
        await response.to_asgi_response(app=None, request=None)(scope, receive, send)  # type: ignore[arg-type]


def _refusal(scope: HTTPScope) -> tuple[int, str] | None:
    hosts = _values(scope, b"host")
    if len(hosts) != 1 or not is_loopback_host(hosts[0]):
        return 421, "This server answers on loopback names only."
    if scope["method"] in _SAFE_METHODS:
        return None
    origins = _values(scope, b"origin")
    if any(origin.lower() != f"{scope['scheme']}://{hosts[0]}".lower() for origin in origins):
        return 403, "This server takes no requests from other origins."
    return None


def _values(scope: HTTPScope, header: bytes) -> list[str]:
    return [value.decode("latin-1") for name, value in scope["headers"] if name == header]
