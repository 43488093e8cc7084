"""Errors of a GraphQL operation that its caller should read."""

from __future__ import annotations


class OperationError(Exception):
    """The operation cannot be done; the message goes to the client as it is.

    Args:
        message: what the client's user reads.
        status: HTTP status of the answer; 200 keeps the SDK from trying again.
    """

    def __init__(self, message: str, *, status: int = 200) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
