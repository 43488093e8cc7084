"""API key, loopback hosts, signed URLs."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.backend.auth import Credentials, is_loopback_host, load_credentials
from registry.backend.signing import UrlSigner
from registry.errors import AuthError, StorageError

CREDENTIALS = Credentials("k" * 40, b"secret")


def basic(user: str, key: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{key}".encode()).decode()


def test_credentials_are_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    made = load_credentials(path)
    assert len(made.api_key) == 40
    assert load_credentials(path) == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert made.api_key not in repr(made)


def test_damaged_credentials_are_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    path.write_text("{")
    with pytest.raises(StorageError):
        load_credentials(path)
    assert path.read_text() == "{"


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        (basic("api", "k" * 40), True),
        (f"Bearer {'k' * 40}", True),
        (basic("api", "x" * 40), False),
        (basic("other", "k" * 40), False),
        (basic("api", ""), False),
        ("Basic !!!", False),
        ("Basic " + base64.b64encode(b"\xff\xfe").decode(), False),
        ("Bearer ", False),
        ("Digest abc", False),
        ("", False),
        (None, False),
        ("Bearer \udcff", False),
    ],
)
def test_keys(header: str | None, accepted: bool) -> None:
    if header and "\udcff" in header:
        header = header.encode("utf-8", "surrogateescape").decode("latin-1")
    assert CREDENTIALS.accepts(header) is accepted


@pytest.mark.parametrize(
    ("host", "accepted"),
    [
        ("127.0.0.1:8200", True),
        ("127.0.0.1", True),
        ("127.8.9.1:1", True),
        ("localhost:8200", True),
        ("LOCALHOST.", True),
        ("[::1]:8200", True),
        ("localhost.evil.com", False),
        ("127.0.0.1.evil.com", False),
        ("evil.com", False),
        ("10.0.0.1", False),
        ("0.0.0.0", False),
        ("[::]:1", False),
        ("2130706433", False),
        ("", False),
        (None, False),
    ],
)
def test_hosts(host: str | None, accepted: bool) -> None:
    assert is_loopback_host(host) is accepted


def test_tokens_survive_a_restart_and_carry_their_claims() -> None:
    token = UrlSigner(b"secret", 60).sign("put", {"kind": "file", "name": "ü/a b"})
    claims = UrlSigner(b"secret", 1).verify("put", token)
    assert (claims["kind"], claims["name"]) == ("file", "ü/a b")


def test_tokens_are_for_one_action_one_secret_one_time() -> None:
    token = UrlSigner(b"secret", 60).sign("put", {})
    with pytest.raises(AuthError):
        UrlSigner(b"secret", 60).verify("get", token)
    with pytest.raises(AuthError):
        UrlSigner(b"other", 60).verify("put", token)
    with pytest.raises(AuthError):
        UrlSigner(b"secret", 60).verify("put", UrlSigner(b"secret", 0).sign("put", {}))


@given(st.data())
def test_tampered_tokens_are_refused(data: st.DataObject) -> None:
    signer = UrlSigner(b"secret", 60)
    token = signer.sign("get", {"sha256": "a" * 64})
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters(codec="latin-1").filter(lambda c: c != token[place]))
    changed = token[:place] + other + token[place + 1 :]
    with pytest.raises(AuthError):
        signer.verify("get", changed)
