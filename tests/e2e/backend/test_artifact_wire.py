"""Artifacts by hand over the wire: what an SDK shows only when something went wrong."""

from __future__ import annotations

import base64
import hashlib
import time

import pytest

from tests.backend_process import BackendProcess
from tests.faults.backend.wire import PROJECT, RefusedError, Wire

FILES = {"a.txt": b"one", "folder/b.txt": b"two"}


def stored(backend: BackendProcess) -> set[str]:
    folders = (f for f in (backend.data_dir / "blobs").iterdir() if f.name != "incoming")
    return {blob.name for folder in folders for blob in folder.iterdir()}


def test_a_version_that_was_given_up_is_collected(backend: BackendProcess) -> None:
    """Its files stay as long as its URLs live; then the next version sweeps them away."""
    kept = hashlib.sha256(FILES["a.txt"]).hexdigest()
    with Wire(backend) as wire:
        draft = wire.begin("model", FILES)
        wire.upload_files(draft)
        wire.begin("other", {"c.txt": b"c"})
        assert kept in stored(backend)
    backend.stop()
    backend.arguments = ("--url-ttl-s", "1")
    backend.start()
    with Wire(backend) as wire:
        deadline = time.monotonic() + 60
        while kept in stored(backend):
            assert time.monotonic() < deadline
            wire.begin("other", {"c.txt": str(time.monotonic()).encode()})
            time.sleep(0.1)
        with pytest.raises(RefusedError):
            wire.commit(draft)


def test_an_entry_by_its_digest(backend: BackendProcess) -> None:
    """The addresses to which SDKs fall back when a signed URL has expired."""
    with Wire(backend) as wire, backend.client() as client:
        draft = wire.log_artifact("model", FILES)
        digest = hashlib.md5(FILES["folder/b.txt"]).hexdigest()
        version = draft.id.replace("=", "%3D")
        for address in (
            f"/artifactsV2/default/local/{PROJECT}/model/{version}/{version}/{digest}/b.txt",
            f"/artifactsV2/default/local/{PROJECT}/model/{version}//{digest}/b.txt",
            f"/artifactsV2/default/local/{PROJECT}/model/{version}/{digest}/b.txt",
            f"/artifacts/local/{digest}",
        ):
            answer = client.get(address)
            assert (answer.status_code, answer.content) == (200, b"two"), address
            assert client.get(address, auth=("api", "x" * 40)).status_code == 401
            wrong = address.replace(digest, digest[::-1])
            assert client.get(wrong).status_code == 404
            assert client.get(address.replace("local", "elsewhere")).status_code == 404


def test_ids_are_base64(backend: BackendProcess) -> None:
    with Wire(backend) as wire:
        draft = wire.log_artifact("model", FILES)
    assert base64.b64decode(draft.id, validate=True) == b"Artifact:1"


def test_numbers_only_grow(backend: BackendProcess) -> None:
    delete = """mutation($id: ID!) { deleteArtifact(input: {artifactID: $id, deleteAliases: true})
        { artifact { id } } }"""
    with Wire(backend) as wire:
        for number in range(3):
            draft = wire.log_artifact("model", {"a.txt": str(number).encode()})
            assert set(wire.versions("model")) == {number}
            wire.ask(delete, id=draft.id)
        assert wire.versions("model") == {}
    assert stored(backend) == set()
