"""A small real HTTP server for files, which can be told to fail in the ways that servers do."""

from __future__ import annotations

import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Fault:
    """What to do to one answer.

    kind: flip, truncate, reset, stall, status, expire, no-range, wrong-range, gzip
    at: byte of the answer where it happens
    times: how many answers suffer it
    """

    kind: str
    at: int = 0
    times: int = 1
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class FileServer:
    """Files by name, faults by name, and what was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    sent_bytes: int = 0
    connections: int = 0
    generation: int = 0
    signed: bool = False
    address_requests: int = 0
    port: int = 0
    released: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def addresses(self, paths: Any) -> dict[str, str]:
        """As a hub gives them: signed addresses carry the present generation."""
        self.address_requests += 1
        return {p: f"http://127.0.0.1:{self.port}/{p}?sig={self.generation}" for p in paths}

    def take_fault(self, name: str) -> Fault | None:
        with self.lock:
            for fault in self.faults.get(name, []):
                if fault.times:
                    fault.times -= 1
                    return fault
        return None


@contextmanager
def file_server(**files: bytes) -> Iterator[FileServer]:
    state = FileServer(dict(files))

    class Handler(_Handler):
        server_state = state

    server = _Server(("127.0.0.1", 0), Handler)
    state.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        state.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: FileServer

    def setup(self) -> None:
        super().setup()
        with self.server_state.lock:
            self.server_state.connections += 1

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        state = self.server_state
        name, _, query = self.path[1:].partition("?")
        asked = self.headers.get("Range", "")
        with state.lock:
            state.requests.append((name, asked))
        fault = state.take_fault(name)
        body = state.files.get(name)
        if fault is not None and fault.kind == "expire":
            state.generation += 1
            state.signed = True
        if state.signed and query != f"sig={state.generation}":
            self._fail(403, {})
        elif fault is not None and fault.kind == "status":
            self._fail(fault.status, fault.headers)
        elif body is None:
            self._fail(404, {})
        else:
            self._answer(body, asked, fault)

    def _fail(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"sorry")

    def _answer(self, body: bytes, asked: str, fault: Fault | None) -> None:
        kind = fault.kind if fault else ""
        start, end = 0, len(body)
        match = re.match(r"bytes=(\d+)-(\d+)", asked)
        if match and kind != "no-range":
            start, end = int(match[1]), min(int(match[2]) + 1, len(body))
            shown = start + 1 if kind == "wrong-range" else start
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {shown}-{end - 1}/{len(body)}")
        else:
            self.send_response(200)
        if kind == "gzip":
            self.send_header("Content-Encoding", "gzip")
        part = bytearray(body[start:end])
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self._send(part, fault, kind)

    def _send(self, part: bytearray, fault: Fault | None, kind: str) -> None:
        at = min(fault.at, len(part) - 1) if fault else 0
        if kind == "flip":
            part[at] ^= 1
        cut = kind in {"truncate", "reset", "stall"}
        sent = bytes(part[:at] if cut else part)
        self.wfile.write(sent)
        with self.server_state.lock:
            self.server_state.sent_bytes += len(sent)
        if kind == "stall":
            self.server_state.released.wait(20)
        if cut:
            self.close_connection = True
        if kind == "reset":
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()
