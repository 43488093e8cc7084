"""Length-prefixed msgpack frames on a byte stream: 4 bytes big-endian length, then the message.

Owns framing and its limit; does not know what the messages mean.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Generic, TypeVar

import msgspec

MAX_FRAME_BYTES = 64 * 2**20

_LENGTH = struct.Struct(">I")
_encoder = msgspec.msgpack.Encoder()

Incoming = TypeVar("Incoming")


class FrameError(Exception):
    """The stream cannot be trusted any more: a frame too long, or one that is no message."""


class Channel(Generic[Incoming]):
    """Messages in both directions over one connected stream.

    Args:
        reader, writer: the stream.
        decoder: for the messages that arrive.
        max_frame_bytes: longest frame that is sent or accepted.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        decoder: msgspec.msgpack.Decoder[Incoming],
        *,
        max_frame_bytes: int = MAX_FRAME_BYTES,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = decoder
        self._max_frame_bytes = max_frame_bytes

    def send(self, message: msgspec.Struct) -> None:
        """Queue a message for sending, in order.

        Raises:
            FrameError: the message is longer than a frame may be; nothing was sent.
        """
        payload = _encoder.encode(message)
        if len(payload) > self._max_frame_bytes:
            raise FrameError(f"message of {len(payload)} bytes, limit {self._max_frame_bytes}")
        self._writer.write(_LENGTH.pack(len(payload)) + payload)

    async def drain(self) -> None:
        """Wait until the other side has taken enough of what was sent.

        Raises:
            ConnectionError: the other side is gone.
        """
        await self._writer.drain()

    async def receive(self) -> Incoming | None:
        """Return the next message, or None when the other side has closed.

        Raises:
            FrameError: a frame is too long or holds no known message.
        """
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            if length > self._max_frame_bytes:
                raise FrameError(f"frame of {length} bytes, limit {self._max_frame_bytes}")
            payload = await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        try:
            return self._decoder.decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise FrameError(f"not a message: {type(error).__name__}") from error

    def close(self) -> None:
        """Close both directions; what was queued is still sent."""
        self._writer.close()
