"""The Litestar application: routes, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any, cast

import msgspec
import structlog
from litestar import Litestar, Request, Response, get, post
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.response import Stream

from serving.body import declares_file, read_body, require_json, unless_gone
from serving.config import ServeConfig
from serving.data_plane import DataPlane, version_headers
from serving.dialects import huggingface
from serving.dialects.files import FILE_KINDS, file_request
from serving.errors import (
    InvalidRequestError,
    MethodNotAllowedError,
    ServingError,
    UnknownModelError,
)
from serving.fleet import Fleet
from serving.gateway import FACTS, REQUEST_ID
from serving.problem import CONTENT_TYPE, internal_error, problem_body, problem_headers
from serving.streaming import Last, Streaming
from serving.telemetry import Telemetry

JSON = "application/json"
EVENTS = "text/event-stream; charset=utf-8"
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"

_log = structlog.get_logger(__name__)

AnyRequest = Request[Any, Any, State]


class Readiness:
    """Whether the server wants traffic; a drain says no before anything else changes."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.draining = False

    @property
    def ready(self) -> bool:
        """Whether all deployments answer and no drain has begun."""
        return not self.draining and self._fleet.ready


@post("/models/{name:str}", status_code=200)
async def predict(request: AnyRequest, name: str, state: State) -> Response[Any]:
    """Predict in Hugging Face's shape."""
    config: ServeConfig = state.config
    plane: DataPlane = state.plane

    async def read() -> huggingface.HuggingFaceRequest:
        kind = _file_kind(state.fleet, name)
        limits = config.http if kind is None else config.http.for_files()
        if declares_file(request.headers, kind):
            return file_request(await read_body(request.headers, request.receive, limits))
        require_json(request.headers)
        body = await read_body(request.headers, request.receive, limits)
        return huggingface.decode(
            body,
            max_items=limits.items,
            max_characters=limits.characters,
            max_depth=limits.depth,
        )

    facts = _facts(request)
    facts["model"] = name[:128]
    answered = await plane.predict(name, read, partial(unless_gone, request.receive))
    if isinstance(answered, Streaming):
        return _stream(request, answered)
    facts.update(version=answered.version.pinned_name, items=len(answered.values))
    body = huggingface.shape(answered.version.task, answered.values, single=answered.inputs.single)
    return Response(msgspec.json.encode(body), media_type=JSON, headers=answered.headers())


@get("/models")
async def list_models(state: State) -> Response[bytes]:
    """Tell the state of every deployment."""
    return _json({"models": state.fleet.describe()})


@get("/models/{name:str}")
async def show_model(name: str, state: State) -> Response[bytes]:
    """Tell the state of one deployment."""
    return _json(state.fleet.get(name).describe())


@get("/livez")
async def livez() -> Response[bytes]:
    """Answer as long as the process can."""
    return _json({"live": True})


@get("/readyz")
async def readyz(state: State) -> Response[bytes]:
    """Answer 200 when every deployment takes requests, 503 before that and during a drain."""
    ready = state.readiness.ready
    states = {deployment.name: deployment.state for deployment in state.fleet}
    answer = {"ready": ready, "draining": state.readiness.draining, "models": states}
    return _json(answer, status=200 if ready else 503)


@get("/metrics")
async def metrics(state: State) -> Response[bytes]:
    """Tell the counters in Prometheus' text form."""
    return Response(state.telemetry.render_prometheus(), media_type=PROMETHEUS)


def create_app(
    fleet: Fleet, telemetry: Telemetry, config: ServeConfig, readiness: Readiness | None = None
) -> Litestar:
    """Return the application; it expects `gateway.Gateway` around it."""
    plane = DataPlane(
        fleet,
        telemetry,
        max_queue=config.core.max_queue,
        timeout_s=config.http.request_timeout_s,
    )
    telemetry.add_gauges(plane.gauges)
    return Litestar(
        route_handlers=[predict, list_models, show_model, livez, readyz, metrics],
        exception_handlers={
            ServingError: _on_serving_error,
            HTTPException: _on_http_exception,
            Exception: _on_exception,
        },
        state=State(
            {
                "fleet": fleet,
                "telemetry": telemetry,
                "config": config,
                "plane": plane,
                "readiness": readiness or Readiness(fleet),
            }
        ),
        openapi_config=None,
        logging_config=None,
    )


def _stream(request: AnyRequest, streaming: Streaming) -> Stream:
    """Return the tokens of an answer as server-sent events."""
    facts, request_id, version = _facts(request), _request_id(request), streaming.version

    async def events() -> AsyncIterator[bytes]:
        index = 0
        try:
            async for one in streaming.events():
                pieces = one.pieces if isinstance(one, Last) else [one]
                for left, piece in zip(reversed(range(len(pieces))), pieces, strict=True):
                    index += 1
                    final = one.final if isinstance(one, Last) and not left else None
                    yield huggingface.token_event(index, piece, final)
        except ServingError as error:
            facts["error_type"] = error.error_type
            yield huggingface.error_event(error)
        except Exception as error:
            _log.error("http.failed", request_id=request_id, exc_info=error)
            yield huggingface.error_event(internal_error())
        finally:
            streaming.close()
            facts["tokens"] = streaming.tokens

    if version is not None:
        facts["version"] = version.pinned_name
    headers = version_headers(version) if version is not None else {}
    return Stream(events(), media_type=EVENTS, headers=headers)


def _file_kind(fleet: Fleet, name: str) -> str | None:
    """Return which files the model behind a name takes; None for none."""
    version = fleet.get(name).version
    return FILE_KINDS.get(version.task) if version else None


def _json(document: Any, *, status: int = 200) -> Response[bytes]:
    return Response(msgspec.json.encode(document), media_type=JSON, status_code=status)


def _facts(request: AnyRequest) -> dict[str, Any]:
    return cast("dict[str, dict[str, Any]]", request.scope)[FACTS]


def _request_id(request: AnyRequest) -> str:
    return cast("dict[str, str]", request.scope)[REQUEST_ID]


def _live_version(request: AnyRequest) -> dict[str, str]:
    """Return the headers that name the version behind the path, where there is one."""
    fleet: Fleet = request.app.state.fleet
    try:
        version = fleet.get(str(request.scope.get("path_params", {}).get("name", ""))).version
    except UnknownModelError:
        return {}
    return version_headers(version) if version else {}


def _problem(request: AnyRequest, error: ServingError) -> Response[bytes]:
    return Response(
        problem_body(error, _request_id(request)),
        status_code=error.status,
        media_type=CONTENT_TYPE,
        headers={**_live_version(request), **dict(problem_headers(error))},
    )


def _on_serving_error(request: AnyRequest, error: ServingError) -> Response[bytes]:
    _facts(request)["error_type"] = error.error_type
    return _problem(request, error)


def _on_http_exception(request: AnyRequest, error: HTTPException) -> Response[bytes]:
    """Turn what Litestar's own routing says into our error tree."""
    if error.status_code == 404:
        unknown = UnknownModelError(
            "There is nothing at this path.", hint="GET /models lists what is served."
        )
        return _problem(request, unknown)
    if error.status_code == 405:
        response = _problem(request, MethodNotAllowedError("This path does not take this method."))
        response.headers.update(error.headers or {})
        return response
    if error.status_code < 500:
        return _problem(request, InvalidRequestError("The request cannot be understood."))
    return _on_exception(request, error)


def _on_exception(request: AnyRequest, error: Exception) -> Response[bytes]:
    _log.error("http.failed", request_id=_request_id(request), exc_info=error)
    return _problem(request, internal_error())
