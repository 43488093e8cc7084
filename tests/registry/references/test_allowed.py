"""Which references are allowed: the grammar, what lies beneath, what leads out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import ConfigError, UnavailableError, UnsafeContentError
from registry.references.allowed import is_checkable, parse_allowed, refuse_unallowed, same_etag
from registry.references.sources import opened
from registry.versions import FileEntry


@pytest.mark.parametrize(
    ("place", "inside", "outside"),
    [
        (
            "s3://bucket/models",
            ["s3://bucket/models", "s3://bucket/models/a", "s3://bucket/models/a?versionId=1"],
            ["s3://bucket/models2", "s3://bucket2/models/a", "gs://bucket/models/a", "s3://bucket"],
        ),
        (
            "https://Host/data/",
            ["https://host/data/x", "https://host:443/data/x", "https://host./data/x"],
            [
                "http://host/data/x", "https://host:444/data/x", "https://host/datax",
                "https://host/data/../x", "https://host/data/%2e%2e/x", "https://me@host/data/x",
                "https://host.evil/data/x", "https://evil/https://host/data/x",
                "https://host\\@evil/data/x", "https://host/data/a\nb", "https://host/data\x00",
            ],
        ),
        ("http://[::1]:80/a", ["http://[::1]/a/b"], ["http://[::2]/a/b"]),
        (
            "file:///data/models",
            ["file:///data/models/a", "file://localhost/data/models/a", "file:///data/models"],
            ["file:///data/models2", "file:///data/models/../x", "file://host/data/models/a"],
        ),
    ],
)  # fmt: skip
def test_a_place_holds_what_lies_beneath_it(
    place: str, inside: list[str], outside: list[str]
) -> None:
    allowed = parse_allowed([place])
    assert [url for url in inside if not allowed.permits(url)] == []
    assert [url for url in outside if allowed.permits(url)] == []
    assert not parse_allowed([]).permits(inside[0])


@pytest.mark.parametrize(
    "text", ["", "host/path", "ftp://host/x", "https://", "file://", "file:///", "file://host/x",
             "file:///a/../b", "http://host:port/x", "http://me:key@host/x", "*"],
)  # fmt: skip
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_allowed([text])


@given(st.text())
def test_no_text_crashes_or_is_allowed_by_accident(text: str) -> None:
    allowed = parse_allowed(["https://host/data", "file:///data"])
    url = f"https://{text}"
    if allowed.permits(url):
        assert text.lower().startswith("host")
    allowed.permits(text)


def entry(url: str, digest: str | None) -> FileEntry:
    return FileEntry("m.safetensors", 1, None, url, digest)


def test_what_the_manifest_says_of_the_bytes() -> None:
    assert is_checkable(entry("http://host/a", "etag"))
    assert not is_checkable(entry("http://host/a", "http://host/a"))
    assert not is_checkable(entry("http://host/a", None))
    assert is_checkable(entry("file:///a", "rL0Y20zC+Fzt72VPzMSk2A=="))
    # What the SDK writes with `checksum=False`: the MD5 of the address.
    assert not is_checkable(entry("file:///a", "AV0Vt3Qj3Qh52v0JFrQqrg=="))
    assert same_etag('"a"', "a") == (True, True)
    assert same_etag('W/"a-gzip"', 'W/"a') == (True, False)
    assert same_etag('"b"', "a") == (False, False)


def test_the_hint_names_what_would_allow_it() -> None:
    with pytest.raises(UnsafeContentError) as caught:
        refuse_unallowed("m:v0", entry("https://host/a/b.safetensors", None), parse_allowed([]))
    assert "--allow-reference https://host/a" in caught.value.hint


@pytest.mark.parametrize(
    "url",
    [
        "http://2852039166:9/latest",  # 169.254.169.254, otherwise written
        "http://[::ffff:169.254.169.254]:9/x",
        "http://[64:ff9b::a9fe:a9fe]:9/x",
        "http://[fe80::1]:9/x",
    ],
)
def test_the_surroundings_of_the_machine_are_not_asked(url: str) -> None:
    allowed = parse_allowed([url.replace("fe80::1", "FE80:0::1")])
    with pytest.raises(UnsafeContentError, match="surroundings"), opened(url, allowed):
        pass


def test_a_bucket_says_what_to_do() -> None:
    with pytest.raises(UnavailableError) as caught, opened("s3://b/a", parse_allowed(["s3://b"])):
        pass
    assert "registry push" in caught.value.hint
