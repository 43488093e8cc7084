"""Names that try to leave the data folder: refused, or stored as data; no file moves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.backend_process import BackendProcess, backend_process
from tests.faults.backend.inspection import FILES_OF_A_DATA_FOLDER, audit
from tests.faults.backend.wire import RefusedError, Wire, manifest_of, md5_base64

HOSTILE = (
    "..",
    ".",
    "../escaped",
    "a/../../escaped",
    "a/..",
    "/etc/escaped",
    "//escaped",
    "..\\escaped",
    "C:\\escaped",
    "\\\\host\\share",
    "a\0b",
    "\0",
    "a//b",
    "./a",
    "a/./b",
    "a/",
    "",
    "x" * 5000,
)
"""No file may have such a name."""

ENCODED = (
    "%2e%2e%2fescaped",
    "%252e%252e%252fescaped",
    "..%2fescaped",
    "\uff0e\uff0e/e",
    "a\u2215b",
)
"""Harmless unless somebody decodes them: they stay what they are."""

CONTENT = b"planted"


@pytest.fixture(scope="module")
def fenced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackendProcess]:
    """A backend whose neighbourhood is watched."""
    root = tmp_path_factory.mktemp("fenced")
    with backend_process(root / "deep" / "data") as backend, Wire(backend) as wire:
        wire.start_run("fenced")
        yield backend


@contextmanager
def nothing_written_outside(backend: BackendProcess) -> Iterator[None]:
    """Fail if a file appears anywhere but as a blob or in the database."""
    root = backend.data_dir.parents[1]
    before = _listing(root, backend.data_dir)
    yield
    assert _listing(root, backend.data_dir) == before
    assert {entry.name for entry in backend.data_dir.iterdir()} <= FILES_OF_A_DATA_FOLDER
    for folder, folders, files in os.walk(backend.data_dir / "blobs"):
        assert all(len(name) == 2 or name == "incoming" for name in folders), folders
        assert all(len(name) == 64 and name[:2] == Path(folder).name for name in files), files


def _listing(root: Path, data_dir: Path) -> set[str]:
    found = set()
    for folder, folders, files in os.walk(root):
        if Path(folder) == data_dir:
            folders.clear()
            continue
        found |= {os.path.join(folder, name) for name in [*folders, *files]}
    return found


def _as_run_file(wire: Wire, name: str) -> None:
    wire.put(wire.file_url("fenced", name), CONTENT)


def _as_run(wire: Wire, name: str) -> None:
    wire.start_run(name)


def _as_project(wire: Wire, name: str) -> None:
    wire.start_run("r", project=name)


def _as_entity(wire: Wire, name: str) -> None:
    wire.start_run("r", entityName=name)


def _as_collection(wire: Wire, name: str) -> None:
    wire.log_artifact(name, {"a": CONTENT})


def _as_artifact_type(wire: Wire, name: str) -> None:
    wire.log_artifact("typed", {"a": CONTENT + name.encode()}, artifactTypeName=name)


def _as_alias(wire: Wire, name: str) -> None:
    wire.log_artifact("aliased", {"a": CONTENT + name.encode()}, aliases=[{"alias": name}])


def _as_manifest_path(wire: Wire, name: str) -> None:
    draft = wire.begin("manifests", {"good": CONTENT, name: b"x"})
    wire.put(
        wire.file_targets(draft, ["good"])[0]["uploadUrl"] or wire.file_url("fenced", "x"), CONTENT
    )
    entry = {"digest": md5_base64(CONTENT), "size": len(CONTENT)}
    wire.upload_manifest(draft, manifest_of({name: entry}))
    wire.commit(draft)


PLACES = {
    "run file": _as_run_file,
    "run": _as_run,
    "project": _as_project,
    "entity": _as_entity,
    "collection": _as_collection,
    "artifact type": _as_artifact_type,
    "alias": _as_alias,
    "manifest path": _as_manifest_path,
}

ABSENT_MEANS_A_DEFAULT = {"run", "project", "entity"}
HARMLESS_AS_AN_ALIAS = {".", "..", "..\\escaped", "\\\\host\\share"}
"""No alias is ever part of a path, and W&B forbids only `/` and `:`."""


@pytest.mark.parametrize("place", PLACES)
def test_a_hostile_name_is_refused(fenced: BackendProcess, place: str) -> None:
    with nothing_written_outside(fenced), Wire(fenced) as wire:
        for name in HOSTILE:
            if not name and place in ABSENT_MEANS_A_DEFAULT:
                continue
            if place == "alias" and name in HARMLESS_AS_AN_ALIAS:
                continue
            with pytest.raises(RefusedError) as refused:  # noqa: PT012 - which name it was
                PLACES[place](wire, name)
                pytest.fail(f"{place} {name[:40]!r} was accepted")
            assert refused.value.status in (200, 400, 404), (name, refused.value)
    audit(fenced.data_dir)


@pytest.mark.parametrize("place", PLACES)
def test_an_encoded_name_is_not_decoded(fenced: BackendProcess, place: str) -> None:
    """Whether it is taken or not, it never becomes a path."""
    taken = []
    with nothing_written_outside(fenced), Wire(fenced) as wire:
        for name in ENCODED:
            try:
                PLACES[place](wire, name)
            except RefusedError:
                continue
            taken.append(name)
        if place == "run file":
            assert set(taken) <= wire.run_files("fenced").keys()


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    name=st.one_of(
        st.text(max_size=40),
        st.lists(
            st.sampled_from(["..", ".", "/", "\\", "a", "%2e", "%", "\0", " ", "~", "é", "\n"]),
            max_size=8,
        ).map("".join),
    )
)
def test_any_file_name_stays_inside(fenced: BackendProcess, name: str) -> None:
    with nothing_written_outside(fenced), Wire(fenced) as wire:
        try:
            _as_run_file(wire, name)
        except RefusedError:
            return
        assert ".." not in name.split("/")
        assert not name.startswith("/")
        assert wire.run_files("fenced")[name] == CONTENT


@pytest.mark.parametrize(
    "path",
    [
        "/files/local/faults/..%2f..%2fescaped/file_stream",
        "/files/local/faults/%252e%252e/file_stream",
        "/files/..%2f..%2f/faults/fenced/file_stream",
        "/files/local/../../etc/file_stream",
        "/files/local/faults/a%00b/file_stream",
        "/files/local/faults/" + "x" * 4000 + "/file_stream",
        "/files/local/faults/%ff%fe/file_stream",
        "/files//faults/fenced/file_stream",
    ],
)
def test_a_stream_to_a_hostile_run_is_refused(fenced: BackendProcess, path: str) -> None:
    body = {"files": {"../../wandb-history.jsonl": {"offset": 0, "content": ["{}"]}}}
    with nothing_written_outside(fenced), fenced.client() as client:
        assert client.post(path, json=body).status_code in (400, 404, 405)


def test_a_stream_with_hostile_file_names_writes_no_file(fenced: BackendProcess) -> None:
    with nothing_written_outside(fenced), fenced.client() as client:
        for name in (*HOSTILE, *ENCODED):
            body = {"files": {name: {"offset": 0, "content": ["{}"]}}, "uploaded": [name]}
            answer = client.post("/files/local/faults/fenced/file_stream", json=body)
            assert answer.status_code in (200, 400)


@pytest.mark.parametrize("name", [*HOSTILE[1:-2], *ENCODED])
def test_a_download_path_reaches_no_file(fenced: BackendProcess, name: str) -> None:
    """Whatever stands in a path, files of the data folder and beyond stay unread."""
    secret = fenced.api_key
    with httpx.Client(base_url=fenced.base_url, auth=("api", secret)) as client:
        for prefix in ("/storage/blob/", "/artifactsV2/", "/artifacts/local/", "/", "/static/"):
            for path in (quote(name, safe=""), quote(name, safe="/"), quote(quote(name, safe=""))):
                for target in ("credentials.json", "backend.sqlite3", "../../../etc/passwd"):
                    answer = client.get(f"{prefix}{path}/{target}")
                    assert "root:" not in answer.text
                    assert secret not in answer.text
                    assert b"SQLite format" not in answer.content
