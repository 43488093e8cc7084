"""A server from its configuration to its exit: bind, load, serve, follow, drain.

Signals: the first SIGTERM or SIGINT drains (not ready, finish what was accepted, deliver the last
metrics, end the workers) and the exit status is 0; a second one exits at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import signal
import socket
from collections.abc import Coroutine, Iterator
from functools import partial
from typing import Any

import msgspec
import structlog
import uvicorn
import uvloop

from registry import (
    AuthError,
    ConfigError,
    GateRefusedError,
    IntegrityError,
    NotFoundError,
    RegistryError,
    UnavailableError,
    UsageError,
)
from serving.app import Readiness, create_app
from serving.config import ServeConfig
from serving.data_plane import DataPlane
from serving.deployment import Deployment
from serving.errors import LoadError, NotReadyError
from serving.fleet import Fleet
from serving.follow import Follower
from serving.gateway import Gateway
from serving.http_protocol import limited_protocol
from serving.keys import KeyRing
from serving.logs import configure_logs
from serving.prepare.parent import prepare_in_child
from serving.prepare.plan import Prepared, PrepareError
from serving.telemetry import ReporterCommand, ServedVersion, Telemetry
from serving.worker.messages import WorkerPlan
from serving.worker.process import WorkerProcess, start_worker

_log = structlog.get_logger(__name__)

LEASE_REFRESH_S = 600.0

LAST_EVENTS_S = 1.0
"""For clients to be told that their streams are cut, after the time to drain."""

_ERRORS: dict[int, type[RegistryError]] = {
    kind.exit_code: kind
    for kind in (
        UsageError,
        NotFoundError,
        AuthError,
        IntegrityError,
        GateRefusedError,
        UnavailableError,
    )
}


def serve(config: ServeConfig) -> int:
    """Serve until a signal; returns the exit status.

    Raises:
        RegistryError: the server cannot start: unsafe address, port taken, or a deployment that
            cannot be served (with the exit status of its cause).
    """
    keys = _keys(config)
    configure_logs()
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    listener = bind(config.host, config.port)
    return uvloop.run(_Server(config, keys, listener).run())


def bind(host: str, port: int) -> socket.socket:
    """Return a socket bound to the address; port 0 takes a free one.

    Raises:
        UnavailableError: the address is taken or not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]"), port))
    except OSError as error:
        listener.close()
        raise UnavailableError(
            f"Cannot listen on {host} port {port}: {error.strerror}.",
            hint="Another server may run there; choose another --port, or 0 for a free one.",
        ) from error
    listener.setblocking(False)
    return listener


def worker_plan(prepared: Prepared, config: ServeConfig) -> WorkerPlan:
    """Return what the worker of a version shall do: as it was tuned, where it was."""
    threads, limits = config.engine_threads, config.core
    if prepared.engine_threads and config.tuned_threads:
        threads = prepared.engine_threads
        limits = msgspec.structs.replace(limits, slots=prepared.slots)
    if prepared.max_batch_rows:
        # Also where the threads are somebody's own choice: rows that run alone do so for their
        # answers' sake.
        rows = min(limits.max_batch_rows, prepared.max_batch_rows)
        limits = msgspec.structs.replace(limits, max_batch_rows=rows)
    return WorkerPlan(
        directory=prepared.directory,
        task=prepared.task,
        engine=prepared.engine,
        engine_threads=threads,
        limits=limits,
    )


def _keys(config: ServeConfig) -> KeyRing | None:
    if config.api_keys is not None:
        return KeyRing.read(config.api_keys)
    if not config.loopback_only:
        raise ConfigError(
            f"{config.host} can be reached from other machines, and no API key is asked for.",
            hint="Add --api-key-file (make a key with `registry key --file FILE`), "
            "or listen on 127.0.0.1.",
        )
    return None


class _UvicornServer(uvicorn.Server):
    """uvicorn without its signal handlers: ours drain first."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


class _Server:
    """The parts of one server and the order in which they start and end."""

    def __init__(self, config: ServeConfig, keys: KeyRing | None, listener: socket.socket) -> None:
        self._config = config
        self._keys = keys
        self._listener = listener
        self._stop = asyncio.Event()
        self._telemetry = Telemetry(
            config.data_dir / "spool",
            window_s=config.report_window_s,
            reporter=ReporterCommand.for_this_python(config.environment) if config.report else None,
        )
        self._fleet = Fleet([self._deployment(name, ref) for name, ref in config.deployments])
        self._readiness = Readiness(self._fleet)
        app = create_app(self._fleet, self._telemetry, config, self._readiness)
        self._plane: DataPlane = app.state.plane
        self._gateway = Gateway(app, config, keys)  # type: ignore[arg-type]

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        await self._telemetry.start()
        http = _UvicornServer(self._uvicorn_config())
        serving = asyncio.create_task(http.serve(sockets=[self._listener]))
        following: asyncio.Task[None] | None = None
        keeping: asyncio.Task[None] | None = None
        try:
            self._say_address()
            if await self._unless_stopped(self._fleet.start()):
                _log.info("serve.ready", models=[deployment.name for deployment in self._fleet])
                following = asyncio.create_task(self._follower().run())
                keeping = asyncio.create_task(self._keep_leases())
            await self._stop.wait()
        except BaseExceptionGroup as group:
            raise _start_error(group) from group
        finally:
            if keeping is not None:
                keeping.cancel()
            await self._drain(http, serving, following)
        return 0

    async def _drain(
        self,
        http: _UvicornServer,
        serving: asyncio.Task[None],
        following: asyncio.Task[None] | None,
    ) -> None:
        self._readiness.draining = True
        self._gateway.draining = True
        _log.info("serve.draining", in_flight=self._gateway.accepted - self._gateway.answered)
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        if self._gateway.accepted:
            await asyncio.sleep(self._config.linger_s)
        http.should_exit = True
        cut = asyncio.get_running_loop().call_later(self._config.drain_timeout_s, self._cut_streams)
        await asyncio.gather(serving, return_exceptions=True)
        cut.cancel()
        await self._telemetry.stop()
        await self._fleet.stop()
        _log.info("serve.stopped", accepted=self._gateway.accepted, answered=self._gateway.answered)

    def _cut_streams(self) -> None:
        self._plane.break_off(
            NotReadyError(
                "The server stopped before the answer was complete.",
                hint="Send again, or start the server with a longer --drain-timeout.",
                retry_after_s=1,
            )
        )

    def _on_signal(self, number: int) -> None:
        if self._stop.is_set():
            # Workers and children end with us: the kernel kills them.
            os._exit(128 + number)
        self._stop.set()

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> bool:
        """Run `work`; False when a signal came first and it was called off."""
        task = asyncio.ensure_future(work)
        stopping = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if task.done():
            task.result()
            return True
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return False

    def _say_address(self) -> None:
        host = self._config.host
        shown = f"[{host}]" if ":" in host else host
        _log.info("serve.listening", url=f"http://{shown}:{self._listener.getsockname()[1]}")

    def _deployment(self, name: str, reference: str) -> Deployment:
        return Deployment(
            name,
            reference,
            prepare=partial(self._prepare, name),
            launch=self._launch,
            policy=self._config.restart,
            drain_timeout_s=self._config.drain_timeout_s,
            on_version=self._on_version,
        )

    async def _prepare(self, name: str, reference: str) -> Prepared:
        return await prepare_in_child(
            reference,
            task=self._config.tasks.get(name),
            engine=self._config.engine,
            precision=self._config.precision,
            environment=self._config.preparing_environment(name),
            timeout_s=self._config.prepare_timeout_s,
        )

    async def _launch(self, label: str, prepared: Prepared) -> WorkerProcess:
        config = self._config
        plan = worker_plan(prepared, config)
        return await start_worker(label, plan, config.environment, timeout_s=config.load_timeout_s)

    def _on_version(self, deployment: Deployment, version: Prepared, what: str) -> None:
        if what == "stopped":
            self._telemetry.version_stopped(deployment.name, version.pinned_name)
            return
        plan = worker_plan(version, self._config)
        self._telemetry.version_started(
            ServedVersion(
                deployment=deployment.name,
                pinned_name=version.pinned_name,
                digest=version.digest,
                engine=version.engine,
                task=version.task,
                facts={
                    "engine_reason": version.reason,
                    "precision": version.precision,
                    "slots": plan.limits.slots,
                    "engine_threads": plan.engine_threads,
                    "max_batch_tokens": plan.limits.max_batch_tokens,
                },
            )
        )

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(LEASE_REFRESH_S)
            for deployment in self._fleet:
                # Not on the loop: a network file system may take its time.
                await asyncio.to_thread(deployment.refresh_leases)

    def _follower(self) -> Follower:
        interval_s = self._config.follow_interval_s
        followed = [
            deployment
            for deployment in self._fleet
            if interval_s > 0 and deployment.version is not None and deployment.version.followed
        ]
        for deployment in followed:
            deployment.followed = True
        return Follower(followed, self._config.environment, interval_s=interval_s)

    def _uvicorn_config(self) -> uvicorn.Config:
        config = self._config
        return uvicorn.Config(
            self._gateway,
            http=limited_protocol(config.http),
            loop="none",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=int(config.http.keep_alive_s),
            timeout_graceful_shutdown=math.ceil(config.drain_timeout_s + LAST_EVENTS_S),
        )


def _start_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error that tells why a start failed, with the exit status of its cause."""
    first = group.exceptions[0]
    if isinstance(first, BaseExceptionGroup):
        return _start_error(first)
    if isinstance(first, PrepareError):
        kind = _ERRORS.get(first.exit_code, RegistryError)
        return kind(first.message, hint=first.hint)
    if isinstance(first, LoadError):
        return RegistryError(first.message, hint=first.hint)
    return first
