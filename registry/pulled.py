"""What a pull returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from registry.content import Skipped
from registry.versions import ArtifactVersion, Conversion


@dataclass(frozen=True, slots=True)
class PulledVersion:
    """A version whose files are here, verified.

    Attributes:
        version: what was pulled, with the manifest's files.
        path: the snapshot: an immutable folder of real files.
        digest: of the snapshot: SHA-256 over the sorted (path, SHA-256) pairs, hexadecimal.
        cached: whether nothing had to be fetched.
        fetched_bytes: what came over the network.
        seconds: how long it took.
        skipped: files that were left on the server, with reasons.
        known_at: offline only: when the server last said where the alias points (RFC 3339).
        base: of a PEFT adapter: its base model. `path` then holds both (see
            `registry.adapter`), and `digest` covers both.
        conversion: how its files came from pickled weights, if they did; `digest` is that of the
            converted files.
    """

    version: ArtifactVersion
    path: Path
    digest: str
    cached: bool
    fetched_bytes: int
    seconds: float
    skipped: tuple[Skipped, ...] = ()
    known_at: str | None = None
    base: PulledVersion | None = None
    conversion: Conversion | None = None
