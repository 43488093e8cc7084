"""Manifests: what files a version holds. Pure: JSON text in, values out, and back."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import ntpath
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import xxhash

from registry.errors import IntegrityError

MAX_ENTRIES = 1_000_000
_HEADER = b"wandb-artifact-manifest-v1\n"
_MAX_PATH_LENGTH = 4096


class DigestAlgorithm(StrEnum):
    """How a version and its files are digested; the values are W&B's."""

    MD5 = "MANIFEST_MD5"
    XXH128 = "MANIFEST_XXH128"


class ManifestKind(StrEnum):
    """What an uploaded manifest says about its version; the values are W&B's."""

    FULL = "FULL"
    """These are all files."""
    PATCH = "PATCH"
    """These are one writer's files; the version holds the union of all writers'."""
    INCREMENTAL = "INCREMENTAL"
    """These are added to, or replace, files of the base version."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, or a reference to one.

    Attributes:
        path: relative, with forward slashes, beneath the version's root.
        digest: base64 of 16 bytes for a stored file; anything for a reference.
        size_bytes: None when a reference's size is not known.
        ref: URL of a reference; None for a stored file.
        birth_artifact_id: public id of the version that first brought the file.
        extra: the SDK's own notes; `alg` names a digest algorithm other than MD5.
    """

    path: str
    digest: str
    size_bytes: int | None = None
    ref: str | None = None
    birth_artifact_id: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def algorithm(self) -> DigestAlgorithm:
        """The algorithm of `digest`."""
        return DigestAlgorithm.XXH128 if self.extra.get("alg") == "XXH128" else DigestAlgorithm.MD5


@dataclass(frozen=True, slots=True)
class Manifest:
    """All entries of a version by path, with the storage policy that the SDK wrote."""

    entries: Mapping[str, Entry]
    storage_policy: str = "wandb-storage-policy-v1"
    storage_policy_config: Mapping[str, Any] = field(
        default_factory=lambda: {"storageLayout": "V2"}
    )

    @property
    def size_bytes(self) -> int:
        """Sum of the known sizes."""
        return sum(entry.size_bytes or 0 for entry in self.entries.values())


def parse_manifest(text: bytes) -> Manifest:
    """Read an SDK's manifest file (version 1).

    Raises:
        IntegrityError: no such manifest, or an entry with an escaping path or a bad digest.
    """
    try:
        document = json.loads(text)
        version, contents = document["version"], document["contents"]
        policy = str(document["storagePolicy"])
        config = dict(document.get("storagePolicyConfig") or {})
        if version != 1 or len(contents) > MAX_ENTRIES:
            raise IntegrityError("The manifest has another version or too many entries.")
        entries = {path: _parse_entry(path, entry) for path, entry in contents.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise IntegrityError(f"The manifest cannot be read: {type(error).__name__}.") from error
    return Manifest(entries, policy, config)


def _parse_entry(path: str, entry: Mapping[str, Any]) -> Entry:
    size = entry.get("size")
    ref = entry.get("ref")
    parsed = Entry(
        path=check_path(path),
        digest=str(entry["digest"]),
        size_bytes=None if size is None else int(size),
        ref=None if ref is None else str(ref),
        birth_artifact_id=entry.get("birthArtifactID"),
        extra=dict(entry.get("extra") or {}),
    )
    if parsed.ref is None:
        digest_hex(parsed.digest)
    return parsed


def check_path(path: str) -> str:
    """Return `path` if it stays beneath its root.

    Raises:
        IntegrityError: absolute, escaping, too long, or not in normal form.
    """
    # Absolute as Windows means it, too: "/x", "\\x", "C:/x".
    escapes = ntpath.isabs(path) or ".." in path.replace("\\", "/").split("/") or "\x00" in path
    normal = path != "." and posixpath.normpath(path) == path
    if escapes or not normal or not 0 < len(path) <= _MAX_PATH_LENGTH:
        raise IntegrityError(f"The manifest names a file outside its root: {path[:80]!r}.")
    return path


def digest_hex(digest: str) -> str:
    """Return a base64 digest of 16 bytes as lower-case hex.

    Raises:
        IntegrityError: the text is no such digest.
    """
    try:
        raw = base64.b64decode(digest, validate=True)
    except (binascii.Error, ValueError) as error:
        raise IntegrityError(f"{digest[:64]!r} is not a base64 digest.") from error
    if len(raw) != 16:
        raise IntegrityError(f"{digest[:64]!r} is not a digest of 16 bytes.")
    return raw.hex()


def digest_base64(hexadecimal: str) -> str:
    """Return a hex digest as the base64 that manifests use."""
    return base64.b64encode(bytes.fromhex(hexadecimal)).decode("ascii")


def merge(base: Manifest | None, parts: Iterable[Manifest]) -> Manifest:
    """Return `base` with the entries of all `parts` laid over it, in order."""
    merged = base
    for part in parts:
        entries = {**(merged.entries if merged else {}), **part.entries}
        merged = replace(part, entries=entries)
    return merged or Manifest({})


def logical_digest(manifest: Manifest, algorithm: DigestAlgorithm) -> str:
    """Return the version's digest (hex), as the SDK computes it from paths and digests."""
    hasher = (
        xxhash.xxh128(_HEADER)
        if algorithm is DigestAlgorithm.XXH128
        else hashlib.md5(_HEADER, usedforsecurity=False)
    )
    for path, entry in sorted(manifest.entries.items()):
        hasher.update(f"{path}:{entry.digest}\n".encode())
    return str(hasher.hexdigest())


def render(manifest: Manifest) -> bytes:
    """Return the manifest file that the SDK reads."""
    document = {
        "version": 1,
        "storagePolicy": manifest.storage_policy,
        "storagePolicyConfig": dict(manifest.storage_policy_config),
        "contents": {path: _render_entry(entry) for path, entry in manifest.entries.items()},
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _render_entry(entry: Entry) -> dict[str, object]:
    fields: dict[str, object] = {
        "digest": entry.digest,
        "ref": entry.ref,
        "birthArtifactID": entry.birth_artifact_id,
        "size": entry.size_bytes,
        "extra": dict(entry.extra) or None,
    }
    return {name: value for name, value in fields.items() if value is not None}
