"""The ASGI application of an open backend."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from litestar import Litestar, get
from litestar.datastructures import State

from registry.backend.graphql_routes import graphql, unknown_names
from registry.backend.hosts import LoopbackHosts
from registry.backend.responses import error_response
from registry.backend.service import Backend
from registry.backend.storage_routes import download, upload

WORKER_THREADS = 32


@get(["/healthz", "/ready"], media_type="text/plain")
async def healthz() -> str:
    """Tell that the server answers (the SDK's `login --verify` and probes ask)."""
    return "ok"


def create_app(backend: Backend) -> Litestar:
    """Return the application that serves `backend`, which stays its caller's to close."""
    frame = [graphql, unknown_names, upload, download, healthz]
    routes = [route for part in backend.parts for route in part.routes]
    return Litestar(
        route_handlers=[*frame, *routes],
        state=State({"backend": backend}),
        exception_handlers={Exception: error_response},
        middleware=[LoopbackHosts],
        on_startup=[_widen_threads],
        openapi_config=None,
        request_max_body_size=None,
        logging_config=None,
    )


async def _widen_threads() -> None:
    """Give waiting for disk and database more threads than the machine has cores."""
    executor = ThreadPoolExecutor(max_workers=WORKER_THREADS, thread_name_prefix="backend")
    asyncio.get_running_loop().set_default_executor(executor)
