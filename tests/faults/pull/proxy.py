"""A proxy before a backend that hurts the answers that carry artifacts' bytes.

Everything else passes unharmed. URLs carry the host by which the backend was reached, so a client
that asks through the proxy also downloads through it.
"""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

STALL_S = 0.8
"""The SDK has no read timeout: a proxy that stalled for ever would never be left."""

_STATUS = {"500": 500, "429": 429, "expired": 403}
_HOP = {"connection", "content-length", "transfer-encoding", "date", "server"}


@dataclass
class Fault:
    """What to do to the next `times` answers that carry bytes.

    kind: flip, shift, truncate, reset, stall, slow-close, wrong-range, 500, 429, expired
    at: where, as a share of the answer's length
    """

    kind: str
    at: float
    times: int = 1


@dataclass
class Proxy:
    """What the proxy does at the moment, and what it did."""

    upstream: str
    port: int = 0
    faults: list[Fault] = field(default_factory=list)
    hurt: int = 0
    sent_bytes: int = 0
    hold_at_bytes: int | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    held: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def heal(self) -> None:
        """Pass everything unharmed from now on."""
        with self.lock:
            self.faults.clear()
            self.hold_at_bytes = None
        self.released.set()
        self.held.clear()

    def hold(self, at_bytes: int) -> None:
        """Stop sending once so many more bytes have left, until healed."""
        with self.lock:
            self.hold_at_bytes = self.sent_bytes + at_bytes
        self.released.clear()
        self.held.clear()

    def take(self) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times:
                    fault.times -= 1
                    self.hurt += 1
                    return fault
        return None

    def allowance(self, wanted: int) -> int:
        """Count bytes that are about to be sent; fewer than wanted where the hold begins."""
        with self.lock:
            if self.hold_at_bytes is not None:
                wanted = max(0, min(wanted, self.hold_at_bytes - self.sent_bytes))
            self.sent_bytes += wanted
        return wanted


@contextmanager
def proxy(upstream: str) -> Iterator[Proxy]:
    state = Proxy(upstream)

    class Handler(_Handler):
        state_of_proxy = state

    server = _Quiet(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        state.heal()
        server.shutdown()
        thread.join()
        server.server_close()


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that are killed or give up are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    state_of_proxy: Proxy

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._pass()

    def do_POST(self) -> None:
        self._pass()

    def do_PUT(self) -> None:
        self._pass()

    def _pass(self) -> None:
        carries_bytes = self.command == "GET" and self.path.startswith("/storage/blob/")
        manifest = "wandb_manifest" in self.path
        fault = self.state_of_proxy.take() if carries_bytes and not manifest else None
        if fault and fault.kind in _STATUS:
            self._fail(_STATUS[fault.kind])
            return
        status, headers, body = self._ask()
        if fault and fault.kind == "wrong-range" and status == 206:
            first, last, total = _content_range(headers["Content-Range"])
            headers["Content-Range"] = f"bytes {first + 1}-{last}/{total}"
            body = body[1:]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if carries_bytes and not manifest:
            self._send(body, fault)
        else:
            self.wfile.write(body)

    def _ask(self) -> tuple[int, dict[str, str], bytes]:
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        connection = http.client.HTTPConnection(urlsplit(self.state_of_proxy.upstream).netloc)
        try:
            headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP}
            connection.request(self.command, self.path, sent or None, headers)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        kept = {k: v for k, v in answer.getheaders() if k.lower() not in _HOP}
        return answer.status, kept, body

    def _fail(self, status: int) -> None:
        self.send_response(status)
        if status in (429, 500):
            self.send_header("Retry-After", "0")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, body: bytes, fault: Fault | None) -> None:
        kind = fault.kind if fault else ""
        at = int(fault.at * len(body)) if fault else 0
        if kind == "flip" and body:
            body = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        elif kind == "shift" and body:
            body = body[1:] + body[:1]
        cut = kind in {"truncate", "reset", "stall"}
        self._write(body[:at] if cut else body)
        if kind in {"stall", "slow-close"}:
            self.wfile.flush()
            time.sleep(STALL_S)
        if cut or kind == "slow-close":
            self.close_connection = True
        if kind == "reset":
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()

    def _write(self, body: bytes) -> None:
        state = self.state_of_proxy
        left = memoryview(body)
        while left:
            count = state.allowance(min(len(left), 64 * 1024))
            if count:
                self.wfile.write(left[:count])
                left = left[count:]
            else:
                state.held.set()
                state.released.wait(60)


def _content_range(text: str) -> tuple[int, int, int]:
    first, last, total = text.removeprefix("bytes ").replace("/", "-").split("-")
    return int(first), int(last), int(total)
