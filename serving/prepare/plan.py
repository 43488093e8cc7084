"""What preparing a version yields; plain values that cross the process boundary as JSON."""

from __future__ import annotations

import msgspec

from serving.errors import LoadError

EXIT_UNAVAILABLE = 7


class Prepared(msgspec.Struct, frozen=True):
    """A version on local disk with its engine chosen.

    Attributes:
        reference: as it was given.
        pinned_name: `entity/project/collection:vN`, or `NAME@DIGEST` for a local folder.
        digest: SHA-256 of the snapshot, hexadecimal.
        directory: what the worker loads.
        task: such as `text-classification`.
        engine: `onnx`, `openvino` or `torch`.
        reason: why this engine.
        followed: whether the reference names an alias that may move.
        seconds: how long preparing took.
        lease: the file that keeps it in the cache while the server lives; empty if there is none.
        known_at: when the alias was last seen to point here (RFC 3339), if the server could not
            be asked now and the cache's word was taken; None when the server said so.
        precision: of the weights and the arithmetic, such as `fp32`.
        engine_threads, slots, max_batch_rows: how its worker shall use the cores, if that was
            measured; 0 leaves it to the server.
    """

    reference: str
    pinned_name: str
    digest: str
    directory: str
    task: str
    engine: str
    reason: str
    followed: bool
    seconds: float = 0.0
    lease: str = ""
    known_at: str | None = None
    precision: str = "fp32"
    engine_threads: int = 0
    slots: int = 0
    max_batch_rows: int = 0


class Refusal(msgspec.Struct, frozen=True):
    """Why a version could not be prepared; the registry's error as values."""

    code: str
    error: str
    hint: str
    exit_code: int


class Report(msgspec.Struct, frozen=True):
    """What the child prints: exactly one of both."""

    prepared: Prepared | None = None
    refusal: Refusal | None = None


class PrepareError(LoadError):
    """A version could not be prepared.

    Attributes:
        code, exit_code: of the registry's error.
    """

    error_type = "prepare"
    title = "Version cannot be prepared"

    def __init__(
        self, message: str, *, hint: str = "", code: str = "prepare", exit_code: int = 1
    ) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.exit_code = exit_code

    @property
    def transient(self) -> bool:
        """Whether trying again later may help: network, server or disk."""
        return self.exit_code == EXIT_UNAVAILABLE
