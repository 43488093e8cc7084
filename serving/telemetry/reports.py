"""What travels through the spool, as msgpack: three kinds of report about a stream.

A stream is one served version in one life of a server; it becomes one W&B run.
The pair (stream, window index) names a window uniquely and for ever.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec


class Stream(msgspec.Struct, frozen=True):
    """One served version in one life of a server.

    Attributes:
        instance: random text made when the server started.
        deployment, pinned_name, digest: as in `RequestRecord`.
        config: plain values for the W&B run's config.
    """

    instance: str
    deployment: str
    pinned_name: str
    digest: str
    config: Mapping[str, str | int | float | bool] = {}

    @property
    def run_id(self) -> str:
        """The W&B run's id: the same after every restart of the reporter."""
        text = "\n".join((self.instance, self.deployment, self.pinned_name))
        return "serve" + hashlib.sha256(text.encode()).hexdigest()[:16]


class VersionStarted(msgspec.Struct, frozen=True, tag="started"):
    """The version is served from now on."""

    stream: Stream


class WindowClosed(msgspec.Struct, frozen=True, tag="window"):
    """What happened in one window.

    Attributes:
        stream: whose window it is.
        index: 1, 2, … within the stream; the W&B step.
        metrics: history values by their W&B names.
        batch_sizes: engine batch size -> batches.
        totals: summary values since the server began, by their W&B names.
    """

    stream: Stream
    index: int
    metrics: Mapping[str, float]
    batch_sizes: Mapping[int, int]
    totals: Mapping[str, float]


class VersionStopped(msgspec.Struct, frozen=True, tag="stopped"):
    """The version is not served any more."""

    stream: Stream


Report = VersionStarted | WindowClosed | VersionStopped

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Report] = msgspec.msgpack.Decoder(Report)


def encode(report: Report) -> bytes:
    """Return the bytes of a report."""
    return _encoder.encode(report)


def decode(payload: bytes) -> Report:
    """Return the report in `payload`.

    Raises:
        msgspec.MsgspecError: it is none (written by another version of Runport).
    """
    return _decoder.decode(payload)


def is_artifact_name(pinned_name: str) -> bool:
    """Say whether a name is `entity/project/collection:vN`, hence has a W&B project."""
    parts = pinned_name.split("/")
    collection, colon, version = parts[-1].rpartition(":")
    return len(parts) == 3 and all(parts) and bool(collection and colon and version)
