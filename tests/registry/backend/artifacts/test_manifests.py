"""Manifests: reading what SDKs write, refusing what is wrong, merging."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.backend.artifacts.manifests import (
    DigestAlgorithm,
    Entry,
    Manifest,
    check_path,
    digest_base64,
    digest_hex,
    logical_digest,
    merge,
    parse_manifest,
    render,
)
from registry.errors import IntegrityError

DIGEST = base64.b64encode(bytes(range(16))).decode()
DIGESTS = st.binary(min_size=16, max_size=16).map(lambda raw: base64.b64encode(raw).decode())
NAMES = st.from_regex(r"[a-zA-Z0-9_-]{1,12}(/[a-z0-9]{1,8}){0,2}", fullmatch=True)
ENTRIES = st.builds(
    Entry,
    path=NAMES,
    digest=DIGESTS,
    size_bytes=st.none() | st.integers(0, 2**50),
    ref=st.none() | st.just("s3://bucket/key"),
    birth_artifact_id=st.none() | st.just("QXJ0aWZhY3Q6MQ=="),
    extra=st.just({}) | st.just({"alg": "XXH128"}),
)
MANIFESTS = st.lists(ENTRIES, max_size=6).map(lambda all: Manifest({e.path: e for e in all}))


@given(MANIFESTS)
def test_what_is_written_is_read(manifest: Manifest) -> None:
    assert parse_manifest(render(manifest)) == manifest


@given(MANIFESTS, MANIFESTS, MANIFESTS)
def test_later_parts_win(base: Manifest, first: Manifest, second: Manifest) -> None:
    merged = merge(base, [first, second])
    assert merged.entries == {**base.entries, **first.entries, **second.entries}
    assert merge(None, [base]) == base


def test_the_algorithm_is_the_entrys() -> None:
    assert Entry("a", DIGEST).algorithm is DigestAlgorithm.MD5
    assert Entry("a", DIGEST, extra={"alg": "XXH128"}).algorithm is DigestAlgorithm.XXH128


def test_the_digest_is_the_sdks() -> None:
    sdk = pytest.importorskip("wandb.sdk.artifacts.artifact_manifests.artifact_manifest_v1")
    for algorithm in DigestAlgorithm:
        theirs = sdk.ArtifactManifestV1.from_manifest_json(
            json.loads(render(Manifest({n: Entry(n, DIGEST, 3) for n in ("b", "a/c")}))), algorithm
        )
        ours = parse_manifest(json.dumps(theirs.to_manifest_json()).encode())
        assert logical_digest(ours, algorithm) == theirs.digest()


@pytest.mark.parametrize(
    "path", ["", ".", "..", "/a", "a/../b", "../a", "a//b", "a/", "a\\..\\b", "C:/a", "a\x00b"]
)
def test_a_path_stays_beneath_its_root(path: str) -> None:
    with pytest.raises(IntegrityError):
        check_path(path)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b'{"version": 2, "storagePolicy": "p", "contents": {}}',
        b'{"version": 1, "storagePolicy": "p", "contents": []}',
        b'{"version": 1, "storagePolicy": "p", "contents": {"a": {}}}',
        b'{"version": 1, "storagePolicy": "p", "contents": {"a": {"digest": "x"}}}',
        b"[" * 100_000,
    ],
)
def test_no_manifest(text: bytes) -> None:
    with pytest.raises(IntegrityError):
        parse_manifest(text)


@given(st.binary(min_size=16, max_size=16))
def test_digests_have_two_spellings(raw: bytes) -> None:
    assert digest_hex(digest_base64(raw.hex())) == raw.hex()
