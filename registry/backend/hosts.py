"""ASGI wrapper that refuses requests for other hosts before anything else sees them."""

from __future__ import annotations

from litestar import Response
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from registry.backend.auth import is_loopback_host


class LoopbackHosts:
    """Answers 421 unless the `Host` header names loopback (defence against DNS rebinding)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == ScopeType.HTTP:
            hosts = [value for name, value in scope["headers"] if name == b"host"]
            if len(hosts) != 1 or not is_loopback_host(hosts[0].decode("latin-1")):
                response: Response[str] = Response(
                    "This server answers on loopback names only.",
                    status_code=421,
                    media_type="text/plain",
                )
                await response.to_asgi_response(app=None, request=None)(scope, receive, send)  # type: ignore[arg-type]
                return
        await self._app(scope, receive, send)
