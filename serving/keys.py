"""API keys: 256 random bits behind an id, stored as SHA-256 only.

A key file has one key a line, `id:sha256:scopes`, scopes separated by commas; `#` begins a comment.
A key itself reads `rp_<id>_<secret>` and is shown once, when it is made.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from pathlib import Path

from registry import ConfigError

SCOPES = ("predict", "read", "admin")
_NOBODY = hashlib.sha256(b"nobody").hexdigest()


@dataclass(frozen=True, slots=True)
class StoredKey:
    """What is kept of a key.

    Attributes:
        id: public part.
        sha256: of the whole key text, hexadecimal.
        scopes: what it may do.
    """

    id: str
    sha256: str
    scopes: frozenset[str]

    def line(self) -> str:
        """Return the key file's line."""
        return f"{self.id}:{self.sha256}:{','.join(sorted(self.scopes))}"


def make_key(scopes: frozenset[str]) -> tuple[str, StoredKey]:
    """Return a new key's text, to be shown once, and what is stored of it."""
    identifier = secrets.token_hex(4)
    text = f"rp_{identifier}_{secrets.token_urlsafe(32)}"
    return text, StoredKey(identifier, _hash(text), scopes)


class KeyRing:
    """The keys that a server accepts.

    Args:
        keys: as stored.
    """

    def __init__(self, keys: list[StoredKey]) -> None:
        self._by_id = {key.id: key for key in keys}

    @classmethod
    def read(cls, path: Path) -> KeyRing:
        """Read a key file.

        Raises:
            ConfigError: it cannot be read, holds no key, or a line is malformed.
        """
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"The key file {path} cannot be read: {type(error).__name__}.",
                hint="Make one with `registry key --file FILE`.",
            ) from error
        keys = [
            _parse(line, f"{path}:{number}")
            for number, line in enumerate(lines, start=1)
            if line.strip() and not line.lstrip().startswith("#")
        ]
        if not keys:
            raise ConfigError(
                f"The key file {path} holds no key.",
                hint="Make one with `registry key --file FILE`.",
            )
        return cls(keys)

    def scopes(self, text: str) -> frozenset[str]:
        """Return what the key `text` may do; nothing when it is not known.

        Takes the same time for an unknown id as for a wrong secret.
        """
        parts = text.split("_", 2)
        found = self._by_id.get(parts[1]) if len(parts) == 3 else None
        expected = found.sha256 if found else _NOBODY
        same = hmac.compare_digest(_hash(text), expected)
        return found.scopes if found is not None and same else frozenset()


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _parse(line: str, place: str) -> StoredKey:
    parts = line.strip().split(":")
    scopes = frozenset(parts[2].split(",")) if len(parts) == 3 else frozenset()
    well_formed = len(parts) == 3 and len(parts[1]) == 64 and scopes <= set(SCOPES)
    if not (well_formed and scopes and set(parts[1]) <= set("0123456789abcdef")):
        raise ConfigError(
            f"{place} is not a key line.",
            hint=f"A line reads id:sha256:scopes, with scopes out of {', '.join(SCOPES)}.",
        )
    return StoredKey(parts[0], parts[1], scopes)
