"""Frozen values that describe one artifact version and its files; no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Digest:
    """A checksum as W&B's manifest gives it.

    Attributes:
        algorithm: `md5` or `xxh128` (SDK 0.29 and later may use either).
        hex: lower-case hexadecimal text.
    """

    algorithm: str
    hex: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a version.

    Attributes:
        path: POSIX path beneath the artifact's root, as the manifest spells it.
        size_bytes: length in bytes.
        digest: what the bytes must hash to; None for a reference entry.
        reference: the URL of a reference entry (`s3://…`); None for stored bytes.
        reference_digest: what the manifest says of a reference, in its own spelling: an MD5 of a
            file's bytes, an ETag, or only the address again.
    """

    path: str
    size_bytes: int
    digest: Digest | None
    reference: str | None = None
    reference_digest: str | None = None


@dataclass(frozen=True, slots=True)
class Conversion:
    """How pickled weights became safetensors.

    Attributes:
        snapshot: digest of the snapshot that holds them as they were logged.
        files: path of the pickle -> path of what it became.
        tensors: how many there are in all.
        prefix: what was taken off the front of every name, as Lightning puts it there.
    """

    snapshot: str
    files: Mapping[str, str]
    tensors: int
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class ArtifactVersion:
    """One immutable version of an artifact collection, and the mutable facts known about it.

    Attributes:
        entity, project, collection: where it lives.
        version: `v3`.
        digest: the version's own digest (W&B's, of its manifest), hexadecimal.
        type: the artifact type, such as `model`.
        aliases: names that pointed here when it was read, in the server's order.
        metadata: JSON values as logged.
        files: entries in manifest order; empty when only listed.
        run_id: the run that logged it, when known.
        run_name: that run's display name, when known.
        created_at: RFC 3339 time, when known.
        size_bytes: total of all files.
    """

    entity: str
    project: str
    collection: str
    version: str
    digest: str
    type: str
    aliases: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[FileEntry, ...] = ()
    run_id: str | None = None
    run_name: str | None = None
    created_at: str | None = None
    size_bytes: int = 0

    @property
    def qualified_name(self) -> str:
        """`entity/project/collection:vN`, the pinned name."""
        return f"{self.entity}/{self.project}/{self.collection}:{self.version}"

    @property
    def short_name(self) -> str:
        """`collection:vN`."""
        return f"{self.collection}:{self.version}"
