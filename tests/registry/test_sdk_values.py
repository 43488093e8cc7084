"""Manifest entries as the SDK gives them."""

from __future__ import annotations

import pytest
from wandb.sdk.artifacts.artifact_manifest_entry import ArtifactManifestEntry

from registry.errors import IntegrityError
from registry.sdk_values import as_file

MD5 = "1B2M2Y8AsgTpgAmY7PhCfg=="


def test_a_size_that_the_manifest_leaves_out_comes_from_the_server() -> None:
    entry = ArtifactManifestEntry(path="a", digest=MD5, size=None, birth_artifact_id="x")
    assert as_file("a", entry, 12).size_bytes == 12
    with pytest.raises(IntegrityError, match="how long 'a' is"):
        as_file("a", entry)
    sized = ArtifactManifestEntry(path="a", digest=MD5, size=0, birth_artifact_id="x")
    assert as_file("a", sized, 12).size_bytes == 0


def test_a_reference_keeps_what_the_manifest_says_of_it() -> None:
    entry = ArtifactManifestEntry(path="a", digest="etag", ref="https://host/a", size=None)
    found = as_file("a", entry)
    assert (found.reference, found.reference_digest) == ("https://host/a", "etag")
    assert (found.size_bytes, found.digest) == (0, None)
