"""Run the backend in the foreground until SIGINT or SIGTERM."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import uvicorn

from registry.backend.app import create_app
from registry.backend.auth import is_loopback_host
from registry.backend.parts import default_parts
from registry.backend.service import Backend, open_backend
from registry.backend.settings import BackendSettings
from registry.backend.zero_copy import SendfileProtocol
from registry.errors import RegistryError, UnavailableError, UsageError

SERVER_FILE = "server.json"
"""In the data folder while a server runs: `{base_url, pid, entity}`."""

SHUTDOWN_TIMEOUT_S = 10
KEEP_ALIVE_S = 100
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def print_ready(ready: Mapping[str, object]) -> None:
    """Print the ready line: one JSON object on stdout."""
    print(json.dumps(ready), flush=True)  # noqa: T201 - the ready line is this program's output


def serve(
    settings: BackendSettings, on_ready: Callable[[Mapping[str, object]], None] = print_ready
) -> None:
    """Serve until a signal asks to stop; requests in progress are finished first.

    Calls `on_ready` with `{base_url, pid, entity, data_dir}` when it accepts connections.

    Raises:
        UsageError: the host is not a loopback address.
        UnavailableError: the port or the data folder is taken.
        StorageError: the data folder cannot be used.
    """
    if not is_loopback_host(_url_host(settings.host)):
        raise UsageError(
            f"{settings.host} is not a loopback address.",
            hint="The backend is for one user on one machine: use 127.0.0.1.",
        )
    with open_backend(settings, default_parts()) as backend, _listen(settings) as listener:
        ready_file = settings.data_dir / SERVER_FILE
        try:
            with _signals_end_the_process_in_order():
                on_ready(_announce(backend, listener, ready_file))
                _uvicorn(backend).run(sockets=[listener])
        except _StoppedError:
            return
        finally:
            ready_file.unlink(missing_ok=True)


class _StoppedError(Exception):
    """A signal asked to stop, and what was in progress is done."""


@contextmanager
def _signals_end_the_process_in_order() -> Iterator[None]:
    """Make SIGTERM and SIGINT unwind the stack.

    uvicorn finishes its requests and then raises the signal again, whose default action would
    end the process on the spot: the database left open, the ready file left behind.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise _StoppedError

    previous = {number: signal.signal(number, stop) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _uvicorn(backend: Backend) -> uvicorn.Server:
    config = uvicorn.Config(
        create_app(backend),
        http=SendfileProtocol,
        log_level="warning",
        access_log=False,
        lifespan="on",
        # Longer than the SDK keeps idle connections, so that it never writes into a closed one.
        timeout_keep_alive=KEEP_ALIVE_S,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
    )
    return uvicorn.Server(config)


def _listen(settings: BackendSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=256)
    except OSError as error:
        raise UnavailableError(
            f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}.",
            hint="Choose another port with --port; 0 takes a free one.",
        ) from error


def _announce(backend: Backend, listener: socket.socket, ready_file: Path) -> dict[str, object]:
    host, port = listener.getsockname()[:2]
    ready: dict[str, object] = {
        "base_url": f"http://{_url_host(host)}:{port}",
        "pid": os.getpid(),
        "entity": backend.settings.entity,
        "data_dir": str(backend.settings.data_dir),
    }
    # One name, so that a kill between the two steps leaves nothing that piles up.
    temporary = ready_file.with_name(f"{ready_file.name}.new")
    temporary.write_text(json.dumps(ready), "utf-8")
    temporary.replace(ready_file)
    # The listener is bound already: connections made from now on wait for the accept loop.
    return ready


def _url_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line of `python -m registry.backend`, serve, return the exit status."""
    parser = argparse.ArgumentParser(
        prog="registry.backend",
        description="Single-user, loopback, W&B-compatible server. Not a replacement for W&B.",
    )
    parser.add_argument("--data", type=Path, required=True, help="data folder")
    parser.add_argument("--host", default="127.0.0.1", help="loopback address")
    parser.add_argument("--port", type=int, default=8200, help="0 takes a free one")
    parser.add_argument("--entity", default="local", help="the single user's name")
    parser.add_argument("--url-ttl-s", type=int, default=24 * 3600)
    parser.add_argument("--heartbeat-timeout-s", type=float, default=300.0)
    parser.add_argument("--replaced-grace-s", type=float, default=600.0)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    settings = BackendSettings(
        data_dir=options.data.absolute(),
        host=options.host,
        port=options.port,
        entity=options.entity,
        url_ttl_s=options.url_ttl_s,
        heartbeat_timeout_s=options.heartbeat_timeout_s,
        replaced_grace_s=options.replaced_grace_s,
    )
    try:
        serve(settings)
    except RegistryError as error:
        sys.stderr.write(f"error: {error.message} {error.hint}\n")
        return error.exit_code
    return 0
