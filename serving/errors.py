"""The error tree of serving; each error knows its HTTP status, its name on the wire and a hint.

What each error interrupts, along the life of a request:

    ServingError                       500
    │   HTTP process, before the body is read
    ├── InvalidRequestError            400   not JSON, or JSON of the wrong shape
    ├── UnauthorizedError              401   no key or an unknown key
    ├── ForbiddenError                 403   foreign Origin, or a key without the right
    ├── UnknownModelError              404   no deployment has this name
    ├── BodyTimeoutError               408   the body arrived too slowly
    ├── PayloadTooLargeError           413   bytes, items or characters over the limit
    ├── UnsupportedMediaTypeError      415   the body is not declared as JSON
    ├── MisdirectedRequestError        421   Host is not one of ours (DNS rebinding)
    │   worker, tokenise and queue
    ├── InvalidInputError              422   an item that the model's task cannot take
    ├── OverloadedError                429   a queue is full; nothing was enqueued
    ├── DeadlineExceededError          504   the answer would have come too late
    ├── RequestCancelledError          499   the client hung up; nobody is there to read this
    │   worker, engine and postprocess
    ├── InferenceError                 500   the engine failed on this item
    │   └── NonFiniteOutputError       500   the model answered NaN or infinity
    │   fleet
    ├── NotReadyError                  503   loading, draining or broken
    │   ├── WorkerCrashedError         503   the process died with this request inside
    │   └── WorkerGoneError            503   the process died before it began with this request
    └── LoadError                      503   a version could not be loaded; never a client's fault

Knows nothing else of the package, so that every module may import it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class ServingError(Exception):
    """Root of all errors that serving raises on purpose.

    Attributes:
        status: HTTP status of the answer.
        error_type: stable, machine-readable identifier (kebab case).
        title: what went wrong in general; never holds anything from the request.
        message: what went wrong this time; safe to show to the client.
        hint: the next step for the person who sees it; may be empty.
        retry_after_s: when trying again is sensible; None when it is not known.
    """

    status: ClassVar[int] = 500
    error_type: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"

    def __init__(self, message: str, *, hint: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.retry_after_s = retry_after_s


class InvalidRequestError(ServingError):
    """The request is not JSON, or JSON of the wrong shape."""

    status = 400
    error_type = "invalid-request"
    title = "Invalid request"


class UnauthorizedError(ServingError):
    """No key, or a key that is not known."""

    status = 401
    error_type = "unauthorized"
    title = "Authentication needed"


class ForbiddenError(ServingError):
    """The request may not do this: a foreign Origin, or a key without the right."""

    status = 403
    error_type = "forbidden"
    title = "Forbidden"


class UnknownModelError(ServingError):
    """No deployment has this name, or no route has this path."""

    status = 404
    error_type = "not-found"
    title = "Not found"


class MethodNotAllowedError(ServingError):
    """The path exists, but not with this method."""

    status = 405
    error_type = "method-not-allowed"
    title = "Method not allowed"


class BodyTimeoutError(ServingError):
    """The body did not arrive in time."""

    status = 408
    error_type = "body-timeout"
    title = "Request body too slow"


class PayloadTooLargeError(ServingError):
    """More bytes, items or characters than the server accepts."""

    status = 413
    error_type = "payload-too-large"
    title = "Payload too large"


class UnsupportedMediaTypeError(ServingError):
    """The body is not declared as a type that this route reads."""

    status = 415
    error_type = "unsupported-media-type"
    title = "Unsupported media type"


class MisdirectedRequestError(ServingError):
    """The Host header names somebody else; a rebound DNS name looks like this."""

    status = 421
    error_type = "misdirected-request"
    title = "Misdirected request"


class InvalidInputError(ServingError):
    """An item that the model's task cannot take."""

    status = 422
    error_type = "invalid-input"
    title = "Invalid input"


class OverloadedError(ServingError):
    """A queue is full; nothing was enqueued, and trying again later may work."""

    status = 429
    error_type = "overloaded"
    title = "Overloaded"


class RequestCancelledError(ServingError):
    """The client hung up before the answer; only the access log sees this."""

    status = 499
    error_type = "cancelled"
    title = "Client closed request"


class InferenceError(ServingError):
    """The engine failed on this item, alone."""

    status = 500
    error_type = "inference"
    title = "Inference failed"


class NonFiniteOutputError(InferenceError):
    """The model answered NaN or infinity, which no JSON can carry and no caller should trust."""

    error_type = "non-finite-output"
    title = "Non-finite model output"


class NotReadyError(ServingError):
    """The deployment is loading, draining or broken."""

    status = 503
    error_type = "not-ready"
    title = "Not ready"


class WorkerCrashedError(NotReadyError):
    """The worker process died while this request was inside it."""

    error_type = "worker-crashed"
    title = "Worker crashed"


class WorkerGoneError(NotReadyError):
    """The worker ended before it began with this request; sending it again is safe."""

    error_type = "worker-gone"
    title = "Worker gone"


class LoadError(ServingError):
    """A version cannot be prepared or loaded; the message says why."""

    status = 503
    error_type = "load"
    title = "Version cannot be loaded"


class DeadlineExceededError(ServingError):
    """The answer would have come after the deadline of the request."""

    status = 504
    error_type = "deadline-exceeded"
    title = "Deadline exceeded"


def _tree(root: type[ServingError]) -> dict[str, type[ServingError]]:
    found = {root.error_type: root}
    for child in root.__subclasses__():
        found.update(_tree(child))
    return found


BY_TYPE: Mapping[str, type[ServingError]] = _tree(ServingError)
"""Error classes by `error_type`, to rebuild an error that crossed a process boundary."""
