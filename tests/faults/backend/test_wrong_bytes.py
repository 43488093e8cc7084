"""Bytes that are not those promised, or for something that is gone: refused, nothing stays."""

from __future__ import annotations

import hashlib

import pytest

from tests.backend_process import BackendProcess
from tests.faults.backend.inspection import audit
from tests.faults.backend.wire import PROJECT, RefusedError, Wire, manifest_of, md5_base64

FILES = {"a.txt": b"right", "b.txt": b"also right"}


def test_a_file_with_other_bytes(backend: BackendProcess, wire: Wire) -> None:
    """Also without Content-MD5, and when only the length agrees."""
    draft = wire.begin("model", FILES)
    [target] = wire.file_targets(draft, ["a.txt"])
    for content in (b"wrong", b"right ", b"", b"righ"):
        with pytest.raises(RefusedError) as refused:
            wire.put(target["uploadUrl"], content)
        assert refused.value.status == 400
    audit(backend.data_dir)
    wire.upload_files(draft)
    wire.upload_manifest(draft)
    wire.commit(draft)
    assert wire.versions("model")[0]["files"] == FILES
    audit(backend.data_dir)


def test_a_manifest_with_other_bytes(backend: BackendProcess, wire: Wire) -> None:
    draft = wire.begin("model", FILES)
    wire.upload_files(draft)
    other = manifest_of({})
    with pytest.raises(RefusedError) as refused:
        wire.upload_manifest(draft, other, announced=draft.manifest)
    assert refused.value.status == 400
    with pytest.raises(RefusedError):
        wire.commit(draft)
    audit(backend.data_dir)


WRONG_MANIFESTS: tuple[object, ...] = (
    {"a.txt": {"digest": md5_base64(b"never sent"), "size": 10}},
    {"a.txt": {"digest": md5_base64(FILES["a.txt"]), "size": 6}},
    {"a.txt": {"digest": "not base64", "size": 5}},
    {"a.txt": {"digest": md5_base64(FILES["a.txt"])[:-4], "size": 5}},
    {"a.txt": {"size": 5}},
    {"a.txt": None},
    [],
)


def test_a_manifest_of_other_files(backend: BackendProcess, wire: Wire) -> None:
    """A version is committed only when every file of its manifest is here and right."""
    draft = wire.begin("model", FILES)
    wire.upload_files(draft)
    for contents in WRONG_MANIFESTS:
        wire.upload_manifest(draft, manifest_of(contents))
        with pytest.raises(RefusedError):
            wire.commit(draft)
        assert wire.versions("model") == {}
        audit(backend.data_dir)
    wire.upload_manifest(draft)
    wire.commit(draft)
    assert wire.versions("model")[0]["files"] == FILES
    audit(backend.data_dir)


def test_parts_that_do_not_make_the_whole(backend: BackendProcess, wire: Wire) -> None:
    """Each part is as announced, and still the file is not: only the whole's digest tells."""
    pieces = [b"first", b"second"]
    parts = [
        {"partNumber": number, "hexMD5": hashlib.md5(piece).hexdigest()}
        for number, piece in enumerate(pieces, 1)
    ]
    draft = wire.begin("model", {"whole.bin": b"something else"})
    [target] = wire.file_targets(draft, ["whole.bin"], {"whole.bin": parts})
    for part in target["uploadMultipartUrls"]["uploadUrlParts"]:
        wire.put(part["uploadUrl"], pieces[part["partNumber"] - 1])
    with pytest.raises(RefusedError):
        wire.complete_multipart(draft, target, parts)
    wire.upload_manifest(draft)
    with pytest.raises(RefusedError):
        wire.commit(draft)
    audit(backend.data_dir)


def test_a_url_after_the_commit(backend: BackendProcess, wire: Wire) -> None:
    """An old upload URL cannot change a version that is final."""
    draft = wire.begin("model", FILES)
    [target] = wire.file_targets(draft, ["a.txt"])
    wire.upload_files(draft)
    wire.upload_manifest(draft)
    wire.commit(draft)
    for content in (FILES["a.txt"], b"other"):
        with pytest.raises(RefusedError) as refused:
            wire.put(target["uploadUrl"], content)
        assert refused.value.status in (400, 404)
    assert wire.versions("model")[0]["files"] == FILES
    audit(backend.data_dir)


def test_uploads_for_what_was_deleted(backend: BackendProcess, wire: Wire) -> None:
    wire.start_run("gone")
    url = wire.file_url("gone", "late.txt")
    wire.save_file("gone", "early.txt", b"early")
    kept = wire.log_artifact("model", FILES, run="gone")
    pending = wire.begin("model", {"late.bin": b"late"}, run="gone")
    [target] = wire.file_targets(pending, ["late.bin"])
    run = wire.ask('query($p: String!) {project(name: $p) {run(name: "gone") {id}}}', p=PROJECT)
    wire.ask(
        "mutation($i: DeleteRunInput!) {deleteRun(input: $i) {success}}",
        i={"id": run["project"]["run"]["id"], "deleteArtifacts": True},
    )
    for late in (url, target["uploadUrl"]):
        with pytest.raises(RefusedError) as refused:
            wire.put(late, b"late")
        assert refused.value.status == 404
    assert kept.id
    assert wire.versions("model") == {}
    audit(backend.data_dir)


def test_deleting_a_version_keeps_what_others_share(backend: BackendProcess, wire: Wire) -> None:
    first = wire.log_artifact("model", {"shared.bin": b"shared", "own.bin": b"one"})
    wire.log_artifact("model", {"shared.bin": b"shared", "own.bin": b"two"})
    wire.start_run("holder")
    wire.save_file("holder", "copy.bin", b"one")
    delete = "mutation($i: DeleteArtifactInput!) {deleteArtifact(input: $i) {success}}"
    wire.ask(delete, i={"artifactID": first.id, "deleteAliases": True})
    versions = wire.versions("model")
    assert [v["files"] for v in versions.values()] == [{"shared.bin": b"shared", "own.bin": b"two"}]
    assert wire.run_files("holder") == {"copy.bin": b"one"}
    audit(backend.data_dir)
