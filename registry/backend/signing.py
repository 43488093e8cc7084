"""URLs that carry their own right: signed, expiring, and nothing to remember.

The token holds its claims; the secret lives in the data folder, so URLs survive a restart.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from urllib.parse import quote

from registry.errors import AuthError


class UrlSigner:
    """Makes and checks signed tokens.

    Args:
        secret: key of the HMAC.
        ttl_s: life of a token.
    """

    def __init__(self, secret: bytes, ttl_s: int) -> None:
        self._secret = secret
        self._ttl_s = ttl_s

    def upload_url(self, base_url: str, kind: str, claims: Mapping[str, object], name: str) -> str:
        """Return a URL to which one file of `kind` may be PUT; `name` is decoration."""
        token = self.sign("put", {**claims, "kind": kind})
        return f"{base_url}/storage/upload/{token}/{quote(name)}"

    def download_url(
        self, base_url: str, sha256: str, name: str, content_type: str | None = None
    ) -> str:
        """Return a URL from which a blob may be fetched; `name` is decoration."""
        token = self.sign("get", {"sha256": sha256, "type": content_type})
        return f"{base_url}/storage/blob/{token}/{quote(name)}"

    def sign(self, action: str, claims: Mapping[str, object]) -> str:
        """Return a token for `action` that carries `claims` (JSON values)."""
        body = {**claims, "action": action, "expires": int(time.time()) + self._ttl_s}
        payload = _encode(json.dumps(body, separators=(",", ":")).encode())
        return f"{payload}.{self._signature(payload)}"

    def verify(self, action: str, token: str) -> dict[str, object]:
        """Return the claims of a token.

        Raises:
            AuthError: tampered with, expired, or made for another action.
        """
        payload, _, signature = token.partition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(payload).encode()):
            raise AuthError("The URL's signature is wrong.", hint="Ask for a new URL.")
        claims: dict[str, object] = json.loads(_decode(payload))
        expires = claims.get("expires")
        if claims.get("action") != action or not isinstance(expires, int):
            raise AuthError("The URL is for something else.", hint="Ask for a new URL.")
        if expires <= time.time():
            raise AuthError("The URL has expired.", hint="Ask for a new URL.")
        return claims

    def _signature(self, payload: str) -> str:
        return _encode(hmac.new(self._secret, payload.encode(), hashlib.sha256).digest())


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError) as error:
        raise AuthError("The URL's token is malformed.", hint="Ask for a new URL.") from error
