"""Receive a request body within its limits; refuse early what cannot be accepted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from serving.config import HttpLimits
from serving.errors import (
    BodyTimeoutError,
    InvalidRequestError,
    PayloadTooLargeError,
    RequestCancelledError,
    UnsupportedMediaTypeError,
)

Receive = Callable[[], Awaitable[Any]]
Result = TypeVar("Result")

_BYTES = ("application/octet-stream", "binary/octet-stream")


def declares_file(headers: Mapping[str, str], kind: str | None) -> bool:
    """Return whether the body is a file itself, for a model that takes files.

    A body without a type is one: clients of Hugging Face send files so. A page of another origin
    can send that as well, but not without its Origin, which the gateway refuses.

    Args:
        headers: of the request.
        kind: `audio` or `image`; None for a model that takes neither.

    Raises:
        UnsupportedMediaTypeError: it is compressed.
    """
    named = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind is None or (named and named not in _BYTES and not named.startswith(f"{kind}/")):
        return False
    _refuse_compressed(headers)
    return True


def require_json(headers: Mapping[str, str]) -> None:
    """Check that the body is declared as JSON in UTF-8, not compressed.

    A page of another origin can send other types without asking first, so nothing else is read.

    Raises:
        UnsupportedMediaTypeError: it is not.
    """
    kind, _, options = headers.get("content-type", "").partition(";")
    kind = kind.strip().lower()
    if kind != "application/json" and not (
        kind.startswith("application/") and kind.endswith("+json")
    ):
        raise UnsupportedMediaTypeError(
            "The body is not declared as JSON.", hint="Send `Content-Type: application/json`."
        )
    charset = options.replace(" ", "").replace('"', "").lower()
    if "charset=" in charset and "charset=utf-8" not in charset.replace("utf8", "utf-8"):
        raise UnsupportedMediaTypeError("The body is not in UTF-8.", hint="Send JSON in UTF-8.")
    _refuse_compressed(headers)


async def read_body(headers: Mapping[str, str], receive: Receive, limits: HttpLimits) -> bytes:
    """Return the whole body.

    Raises:
        PayloadTooLargeError: longer than allowed; decided before reading where it says so.
        BodyTimeoutError: it did not arrive in time.
        RequestCancelledError: the client hung up.
    """
    declared = headers.get("content-length")
    if declared is not None and not declared.isascii():
        raise InvalidRequestError("Content-Length is not a number.")
    if declared is not None and declared.isdigit() and int(declared) > limits.body_bytes:
        raise _too_large(limits)
    try:
        async with asyncio.timeout(limits.body_timeout_s):
            return await _collect(receive, limits)
    except TimeoutError:
        raise BodyTimeoutError(
            f"The body did not arrive within {limits.body_timeout_s:g} s.",
            hint="Send it in one go.",
        ) from None


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """Return the result of `work`; cancel it when the client hangs up.

    Raises:
        RequestCancelledError: the client hung up first.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise RequestCancelledError("The client hung up before the answer.")
        return await task
    finally:
        for future in (task, gone):
            if not future.done():
                future.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


def _refuse_compressed(headers: Mapping[str, str]) -> None:
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaTypeError(
            "The body is compressed.", hint="Send it without Content-Encoding."
        )


async def _collect(receive: Receive, limits: HttpLimits) -> bytes:
    chunks = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestCancelledError("The client hung up while it sent the body.")
        chunks += message.get("body", b"")
        if len(chunks) > limits.body_bytes:
            raise _too_large(limits)
        if not message.get("more_body", False):
            return bytes(chunks)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _too_large(limits: HttpLimits) -> PayloadTooLargeError:
    return PayloadTooLargeError(
        f"The body is longer than {limits.body_bytes} bytes.",
        hint="Split it into several requests.",
    )
