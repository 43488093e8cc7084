"""Files from the disk's cache to the socket without a copy in this process.

ASGI hands bodies over as `bytes`: for each piece a thread reads, the event loop wakes, the socket
copies. `SendfileProtocol` adds a `FileSender` to the request's scope, by which a response that
has sent its head can let the kernel move the body. It knows nothing of what is in the file; what
it cannot send it leaves to the caller.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_EXTENSION = "runport.sendfile"
_SENDER = "sender"

_STEP_BYTES = 16 * 1024 * 1024
"""At most so much in one visit to a thread, so that a cancelled transfer ends soon."""

_FLUSH_ROUNDS = 20
_UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSOCK})


class _Cycle(Protocol):
    """What is used of uvicorn's side of one request."""

    disconnected: bool
    expected_content_length: int


class SendfileProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which offers a `FileSender` to plain HTTP requests."""

    def on_headers_complete(self) -> None:
        """Offer it with the request that has just been read."""
        before = self.cycle
        super().on_headers_complete()
        # A uvicorn that counts the body in another way sends it itself.
        counts = hasattr(self.cycle, "expected_content_length")
        if self.cycle is not before and counts and self.scheme == "http":
            sender = FileSender(self.cycle, self.transport)
            self.cycle.scope["extensions"] = {_EXTENSION: {_SENDER: sender}}


class FileSender:
    """Sends a part of a file as the body, or a part of the body, of one answer.

    Args:
        cycle: the request and its answer.
        transport: the connection.
    """

    def __init__(self, cycle: _Cycle, transport: asyncio.Transport) -> None:
        self._cycle = cycle
        self._transport = transport

    async def send(self, descriptor: int, start: int, length: int) -> int:
        """Send up to `length` bytes from `start`; return how many were sent.

        Fewer than asked for when the file ends, the client hangs up, or this connection or file
        system cannot do it: the caller goes on by other means. The answer's head is sent before.
        """
        if not await self._flushed():
            return 0
        connection = os.dup(self._transport.get_extra_info("socket").fileno())
        # Its own, so that a thread that outlives a cancelled request sends from no other file.
        file = os.dup(descriptor)
        step: asyncio.Future[int] | None = None
        sent = 0
        try:
            while sent < length and not self._cycle.disconnected:
                step = _step(connection, file, start + sent, min(length - sent, _STEP_BYTES))
                count = await asyncio.shield(step)
                if count == 0:
                    break
                if count < 0:
                    await _writable(connection)
                    continue
                sent += count
                self._cycle.expected_content_length -= count
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                # The client is gone; uvicorn hears of it by itself.
                self._transport.abort()
        finally:
            _close_after(step, connection, file)
        return sent

    async def _flushed(self) -> bool:
        """Whether what was written before, the head, has left the transport's own buffer."""
        for _ in range(_FLUSH_ROUNDS):
            if not self._transport.get_write_buffer_size():
                return not self._transport.is_closing()
            await asyncio.sleep(0)
        return False


def sender_of(scope: Mapping[str, Any]) -> FileSender | None:
    """Return what the request's connection offers, None when it is none of ours."""
    sender = ((scope.get("extensions") or {}).get(_EXTENSION) or {}).get(_SENDER)
    return sender if isinstance(sender, FileSender) else None


def _step(connection: int, file: int, start: int, length: int) -> asyncio.Future[int]:
    loop = asyncio.get_running_loop()
    return loop.run_in_executor(None, partial(_sendfile, connection, file, start, length))


def _sendfile(connection: int, file: int, start: int, length: int) -> int:
    """Send as much as the socket takes now; -1 when it takes nothing, 0 at the file's end."""
    sent = 0
    with suppress(BlockingIOError):
        while sent < length:
            count = os.sendfile(connection, file, start + sent, length - sent)
            if not count:
                return sent
            sent += count
    return sent or -1


async def _writable(connection: int) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_writer(connection, wake)
    try:
        await ready
    finally:
        loop.remove_writer(connection)


def _close_after(step: asyncio.Future[int] | None, *descriptors: int) -> None:
    """Close when no thread uses them any more."""

    def close(ended: asyncio.Future[int] | None) -> None:
        if ended is not None and not ended.cancelled():
            ended.exception()  # Nobody waits for it any more.
        for descriptor in descriptors:
            os.close(descriptor)

    if step is None or step.done():
        close(step)
    else:
        step.add_done_callback(close)
