"""Who may ask: the API key and the hosts by which a browser may reach a loopback server."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import json
import os
import re
import secrets
import string
from dataclasses import dataclass, field
from pathlib import Path

from registry.backend.blobs import sync_directory
from registry.errors import StorageError

KEY_LENGTH = 40
"""The SDK's oldest supported version takes exactly this many characters."""

SECRET_BYTES = 32

_HOST = re.compile(r"(?:\[(?P<v6>[0-9a-f:.]+)\]|(?P<name>[0-9a-z.-]+))(?::[0-9]{1,5})?")
_ALPHABET = string.ascii_lowercase + string.digits


@dataclass(frozen=True, slots=True)
class Credentials:
    """Secrets of one data folder.

    Attributes:
        api_key: what the SDK sends as the password of user `api`.
        signing_secret: key of the signed URLs.
    """

    api_key: str = field(repr=False)
    signing_secret: bytes = field(repr=False)

    def accepts(self, authorization: str | None) -> bool:
        """Tell whether an `Authorization` header carries the API key (Basic or Bearer)."""
        key = _key_in(authorization or "")
        return hmac.compare_digest(key.encode(), self.api_key.encode())


def load_credentials(path: Path) -> Credentials:
    """Read the secrets, or make and keep them at the first start.

    Raises:
        StorageError: the file cannot be written, or does not hold what it should.
    """
    try:
        if not path.exists():
            _create(path)
        stored = json.loads(path.read_text("utf-8"))
        key, secret = str(stored["api_key"]), bytes.fromhex(stored["signing_secret"])
        if len(key) < KEY_LENGTH or len(secret) < SECRET_BYTES:
            raise ValueError("too short")  # an empty key would let everybody in
        return Credentials(key, secret)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"The backend's credentials {path} cannot be used: {type(error).__name__}.",
            hint="Restore the file, or delete it: a new key is made at the next start.",
        ) from error


def _create(path: Path) -> None:
    content = {
        "api_key": "".join(secrets.choice(_ALPHABET) for _ in range(KEY_LENGTH)),
        "signing_secret": secrets.token_hex(SECRET_BYTES),
    }
    # One name, so that a kill before the last step leaves nothing that piles up.
    temporary = path.with_name(f"{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)


def _key_in(authorization: str) -> str:
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() != "basic":
        return ""
    try:
        decoded = base64.b64decode(value.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
    user, separator, key = decoded.partition(":")
    return key if separator and user == "api" else ""


def is_loopback_host(host_header: str | None) -> bool:
    """Tell whether a `Host` header names this machine's loopback interface.

    A page that rebinds its own name to 127.0.0.1 still sends that name, and is refused.
    """
    match = _HOST.fullmatch((host_header or "").lower())
    if match is None:
        return False
    name = match["v6"] or match["name"]
    if name in ("localhost", "localhost."):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
