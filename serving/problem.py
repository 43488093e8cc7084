"""One error body for every route: RFC 9457 with the members that inference clients read."""

from __future__ import annotations

import math

import msgspec

from serving.errors import ServingError, UnauthorizedError

CONTENT_TYPE = "application/problem+json"


def problem_body(error: ServingError, request_id: str) -> bytes:
    """Return the JSON body that tells `error`.

    `error` (a string) is what tritonclient and huggingface_hub read, `error_type` what
    programs should compare.
    """
    return msgspec.json.encode(
        {
            "type": f"urn:runport:error:{error.error_type}",
            "title": error.title,
            "status": error.status,
            "detail": error.message,
            "error": error.message,
            "error_type": error.error_type,
            "hint": error.hint,
            "request_id": request_id,
        }
    )


def problem_headers(error: ServingError) -> list[tuple[str, str]]:
    """Return the headers that go with `error` besides its content type."""
    headers: list[tuple[str, str]] = []
    if error.retry_after_s is not None:
        headers.append(("retry-after", str(max(1, math.ceil(error.retry_after_s)))))
    if isinstance(error, UnauthorizedError):
        headers.append(("www-authenticate", 'Bearer realm="runport"'))
    if error.status in {408, 413}:
        # The rest of the body was not read; the connection cannot be used again.
        headers.append(("connection", "close"))
    return headers


def internal_error() -> ServingError:
    """Return the error that stands for anything unforeseen; tells nothing of its cause."""
    return ServingError(
        "Something went wrong inside the server.",
        hint="The server's log has the cause under this request id.",
    )
