"""uvicorn's HTTP protocol with what it lacks: deadlines for headers and writes, a header limit.

Without them a client that sends one header byte a second holds a connection for ever, one that
sends headers without end fills the memory, and one that reads nothing keeps its answer there.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.config import HttpLimits

_CLOSE = b"connection: close\r\ncontent-length: 0\r\n\r\n"
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\n" + _CLOSE
_TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\n" + _CLOSE


class LimitedProtocol(HttpToolsProtocol):
    """One connection; headers are expected from its opening, and from each request's start."""

    limits: ClassVar[HttpLimits] = HttpLimits()

    _deadline: asyncio.TimerHandle | None = None
    _write_deadline: asyncio.TimerHandle | None = None
    _header_bytes = 0
    _in_headers = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin the deadline for the first request; refuse one connection too many."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            transport.abort()
            return
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadlines."""
        self._forget_deadline()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, then check how much of headers is still open."""
        if self._in_headers:
            self._header_bytes += len(data)
        super().data_received(data)
        # Checked after parsing: a body may have come with the headers.
        if self._in_headers and self._header_bytes > self.limits.header_bytes:
            self._refuse(_TOO_LONG)

    def on_message_begin(self) -> None:
        """Begin the deadline of the next request on this connection."""
        self._in_headers = True
        self._header_bytes = 0
        self._expect_headers()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """End the deadline: the request is known."""
        self._in_headers = False
        self._forget_deadline()
        super().on_headers_complete()

    def pause_writing(self) -> None:
        """Begin the deadline for the client to read its answer."""
        # Abort, not close: what the client does not take would never be flushed.
        self._write_deadline = self.loop.call_later(
            self.limits.write_timeout_s, self.transport.abort
        )
        super().pause_writing()

    def resume_writing(self) -> None:
        """End the deadline for reading."""
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None
        super().resume_writing()

    def _expect_headers(self) -> None:
        self._forget_deadline()
        self._deadline = self.loop.call_later(self.limits.header_timeout_s, self._refuse, _TOO_SLOW)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, answer: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(answer)
            self.transport.close()


def limited_protocol(limits: HttpLimits) -> type[LimitedProtocol]:
    """Return a protocol class for uvicorn, which makes the instances, that keeps to `limits`."""
    return type("BoundedProtocol", (LimitedProtocol,), {"limits": limits})
