from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from registry.config import Settings
from registry.content import Selection
from registry.errors import (
    AmbiguousNameError,
    IntegrityError,
    NotFoundError,
    OfflineError,
    StorageError,
    UnsafeContentError,
)
from registry.hub import Collection
from registry.pull import pull
from registry.pulled import PulledVersion
from registry.retry import Limits
from registry.versions import FileEntry
from tests.registry.file_server import Fault, file_server
from tests.registry.memory_hub import MemoryHub

QUICK = Limits(attempts=2, read_timeout_s=2, first_wait_s=0.001, longest_wait_s=0.01)


def weights(payload: bytes = b"\x00" * 64) -> bytes:
    header = json.dumps(
        {"a": {"dtype": "U8", "shape": [len(payload)], "data_offsets": [0, len(payload)]}}
    ).encode()
    return struct.pack("<Q", len(header)) + header + payload


MODEL = {
    "config.json": b'{"model_type": "bert"}',
    "model.safetensors": weights(),
    "sub/tokenizer.json": b"{}",
    "optimizer.pt": b"\x80\x02state",
}


@pytest.fixture
def hub() -> Iterator[MemoryHub]:
    with file_server() as server:
        yield MemoryHub(server)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(cache_dir=tmp_path / "cache", data_dir=tmp_path / "data", project="p")


def get(name: str, settings: Settings, hub: MemoryHub, **options: object) -> PulledVersion:
    return pull(name, settings=settings, hub=hub, limits=QUICK, **options)  # type: ignore[arg-type]


def content(pulled: PulledVersion) -> dict[str, bytes]:
    return {
        path.relative_to(pulled.path).as_posix(): path.read_bytes()
        for path in pulled.path.rglob("*")
        if path.is_file()
    }


def served(files: dict[str, bytes]) -> dict[str, bytes]:
    return {path: raw for path, raw in files.items() if path != "optimizer.pt"}


def test_a_pull_makes_a_snapshot_of_the_files_needed_to_serve(
    hub: MemoryHub, settings: Settings
) -> None:
    hub.log("run-bert", MODEL)
    pulled = get("run-bert:v0", settings, hub)
    assert content(pulled) == served(MODEL)
    assert not pulled.cached
    assert pulled.fetched_bytes == sum(map(len, served(MODEL).values()))
    assert [file.path for file in pulled.skipped] == ["optimizer.pt"]
    assert pulled.version.qualified_name == "me/p/run-bert:v0"
    assert pulled.path.name == pulled.digest
    assert settings.cache_dir.stat().st_mode & 0o077 == 0


def test_a_pinned_version_is_not_asked_for_again(hub: MemoryHub, settings: Settings) -> None:
    hub.log("run-bert", MODEL)
    first = get("run-bert:v0", settings, hub)
    questions, requests = hub.questions, len(hub.server.requests)
    again = get("run-bert:v0", settings, hub)
    assert again.cached
    assert (again.path, again.digest) == (first.path, first.digest)
    assert (hub.questions, len(hub.server.requests)) == (questions, requests)


def test_an_alias_is_asked_for_and_nothing_is_fetched(hub: MemoryHub, settings: Settings) -> None:
    hub.log("run-bert", MODEL, "best")
    get("run-bert:v0", settings, hub)
    questions, requests = hub.questions, len(hub.server.requests)
    again = get("run-bert:best", settings, hub)
    assert again.cached
    assert hub.questions == questions + 1
    assert len(hub.server.requests) == requests
    assert "best" in again.version.aliases


def test_files_that_are_here_are_not_fetched_again(hub: MemoryHub, settings: Settings) -> None:
    hub.log("run-bert", MODEL)
    changed = {**MODEL, "config.json": b'{"model_type": "bert", "n": 2}'}
    hub.log("run-bert", changed)
    get("run-bert:v0", settings, hub)
    second = get("run-bert:v1", settings, hub)
    assert second.fetched_bytes == len(changed["config.json"])
    assert content(second) == served(changed)


def test_all_include_and_exclude_are_versions_of_their_own(
    hub: MemoryHub, settings: Settings
) -> None:
    hub.log("run-bert", MODEL)
    get("run-bert:v0", settings, hub)
    everything = get("run-bert:v0", settings, hub, selection=Selection(everything=True))
    assert content(everything) == MODEL
    assert everything.fetched_bytes == len(MODEL["optimizer.pt"])
    some = get("run-bert:v0", settings, hub, selection=Selection(include=("config.json",)))
    assert set(content(some)) == {"config.json"}
    assert content(get("run-bert:v0", settings, hub)) == served(MODEL)


def test_offline_uses_what_is_known_and_says_since_when(hub: MemoryHub, settings: Settings) -> None:
    hub.log("run-bert", MODEL, "best")
    offline = replace(settings, offline=True)
    with pytest.raises(OfflineError):
        get("run-bert:best", offline, hub)
    get("run-bert:best", settings, hub)
    questions = hub.questions
    known = get("run-bert:best", offline, hub)
    assert known.known_at is not None
    assert get("run-bert:v0", offline, hub).known_at is None
    assert hub.questions == questions


def test_names_of_other_eras(hub: MemoryHub, settings: Settings) -> None:
    hub.log("model-bert", MODEL)
    assert get("run-bert:v0", settings, hub).version.collection == "model-bert"
    questions = hub.questions
    assert get("run-bert:v0", settings, hub).cached, "the meaning of the name is remembered"
    assert hub.questions == questions
    hub.log("checkpoint-bert", MODEL)
    with pytest.raises(AmbiguousNameError, match="model-bert"):
        get("run-bert:latest", settings, hub)
    hub.log("run-bert", MODEL)
    assert get("run-bert:latest", settings, hub).version.collection == "run-bert"


def test_artifacts_of_runs_displayed_under_the_name(hub: MemoryHub, settings: Settings) -> None:
    hub.log("model-x1y2", MODEL)
    hub.displayed["bert"] = [
        Collection("me", "p", "model-x1y2", "model"),
        Collection("me", "p", "run-x1y2-table", "run_table"),
    ]
    assert get("run-bert:v0", settings, hub).version.collection == "model-x1y2"


def test_a_stub_is_refused_and_the_version_with_weights_named(
    hub: MemoryHub, settings: Settings
) -> None:
    stub = {"model_architecture.txt": b"Bert"}
    hub.log("model-bert", stub, "base_model", metadata={"initial_model": True})
    with pytest.raises(NotFoundError) as caught:
        get("run-bert:v0", settings, hub)
    assert "No version with weights" in caught.value.hint
    hub.log("model-bert", MODEL, "final_model")
    with pytest.raises(NotFoundError) as caught:
        get("run-bert:v0", settings, hub)
    assert "model-bert:v1" in caught.value.hint
    assert get("run-bert:latest", settings, hub).version.version == "v1"


@pytest.mark.parametrize("kind", ["run_table", "dataset"])
def test_what_is_no_model_is_refused(hub: MemoryHub, settings: Settings, kind: str) -> None:
    hub.log("run-bert", MODEL, type=kind)
    with pytest.raises(NotFoundError, match=kind):
        get("run-bert:v0", settings, hub)


def test_selectors(hub: MemoryHub, settings: Settings) -> None:
    for step, f1 in ((10, 0.5), (20, 0.9), (30, 0.7)):
        hub.log("b", MODEL, f"checkpoint_global_step_{step}", metadata={"eval/eval_f1": f1})
    assert get("b:best(eval/f1)", settings, hub).version.version == "v1"
    assert get("b:best(eval/f1,min)", settings, hub).version.version == "v0"
    assert get("b:step(30)", settings, hub).version.version == "v2"
    assert get("b", settings, hub).version.version == "v2"


def test_a_digest_is_demanded(hub: MemoryHub, settings: Settings) -> None:
    version = hub.log("b", MODEL)
    pulled = get(f"b:v0@{version.digest}", settings, hub)
    assert get(f"b@{version.digest[:8]}", settings, hub).version.version == "v0"
    assert get(f"b:v0@{pulled.digest}", settings, hub).path == pulled.path
    for wrong in ("0" * 32, "0" * 64):
        with pytest.raises(IntegrityError):
            get(f"b:v0@{wrong}", settings, hub)


@pytest.mark.parametrize(
    ("path", "raw"),
    [
        ("model.safetensors", b"\x80\x04pickle"),
        ("config.json", b'{"auto_map": {"AutoModel": "x.Y"}}'),
        ("pytorch_model.bin", b"PK\x03\x04"),
        ("../escape.json", b"{}"),
        ("modeling.py", b"import os"),
    ],
)
def test_unsafe_versions_are_never_committed(
    hub: MemoryHub, settings: Settings, path: str, raw: bytes
) -> None:
    hub.log("b", {"README.md": b"hello", path: raw})
    with pytest.raises(UnsafeContentError):
        get("b:v0", settings, hub)
    assert not (settings.cache_dir / "versions").exists()
    assert not list((settings.cache_dir.parent).glob("escape*"))


def test_references_are_refused_unread(hub: MemoryHub, settings: Settings) -> None:
    secret = f"http://127.0.0.1:{hub.server.port}/secret"
    hub.log("b", {}, entries=[FileEntry("secret", 6, None, reference=secret)])
    with pytest.raises(UnsafeContentError):
        get("b:v0", settings, hub)
    assert not hub.server.requests


def test_wrong_bytes_are_never_committed(hub: MemoryHub, settings: Settings) -> None:
    hub.log("b", MODEL)
    md5 = hashlib.md5(MODEL["model.safetensors"]).hexdigest()
    hub.server.faults[md5] = [Fault("flip", at=40, times=3)]
    with pytest.raises(IntegrityError):
        get("b:v0", settings, hub)
    assert not (settings.cache_dir / "versions").exists()
    assert content(get("b:v0", settings, hub)) == served(MODEL)


def _flip(path: Path) -> None:
    status = path.stat()
    path.chmod(0o600)
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    path.chmod(0o444)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_flipped_bit_is_found_quarantined_and_fetched_again(
    hub: MemoryHub, settings: Settings
) -> None:
    hub.log("b", MODEL)
    first = get("b:v0", settings, hub)
    _flip(first.path / "model.safetensors")
    again = get("b:v0", settings, hub, verify=True)
    assert not again.cached
    assert content(again) == served(MODEL)
    assert list((settings.cache_dir / "quarantine").iterdir())


@pytest.mark.parametrize("harm", ["touched", "shorter", "gone", "linked", "all gone"])
def test_other_harm_is_found_without_hashing_all(
    hub: MemoryHub, settings: Settings, harm: str, tmp_path: Path
) -> None:
    hub.log("b", MODEL)
    file = get("b:v0", settings, hub).path / "model.safetensors"
    if harm == "touched":
        _flip(file)
        os.utime(file, (1, 1))
    elif harm == "shorter":
        file.chmod(0o600)
        os.truncate(file, 10)
    elif harm == "gone":
        file.unlink()
    elif harm == "linked":
        other = tmp_path / "other"
        other.write_bytes(MODEL["model.safetensors"])
        file.unlink()
        file.symlink_to(other)
    else:
        shutil.rmtree(file.parent)
    again = get("b:v0", settings, hub)
    assert content(again) == served(MODEL)
    assert not (again.path / "model.safetensors").is_symlink()


def test_damaged_records_and_notes_are_as_if_absent(hub: MemoryHub, settings: Settings) -> None:
    hub.log("b", MODEL)
    get("b:v0", settings, hub)
    for folder in ("versions", "digests", "refs"):
        for path in (settings.cache_dir / folder).rglob("*"):
            if path.is_file():
                path.write_bytes(b"\xff{torn")
    assert content(get("b:v0", settings, hub)) == served(MODEL)


def test_another_server_is_another_cache(hub: MemoryHub, settings: Settings) -> None:
    hub.log("b", MODEL)
    get("b:v0", settings, hub)
    elsewhere = replace(settings, base_url="http://127.0.0.1:1", offline=True)
    with pytest.raises(OfflineError):
        get("me/p/b:v0", elsewhere, hub)


def test_a_version_logged_anew_is_fetched_anew(hub: MemoryHub, settings: Settings) -> None:
    hub.log("b", MODEL)
    get("b:v0", settings, hub)
    hub.held.clear()
    changed = {**MODEL, "config.json": b'{"n": 3}'}
    hub.log("b", changed)
    assert content(get("b:latest", settings, hub)) == served(changed)
    assert content(get("b:v0", settings, hub, refresh=True)) == served(changed)


def test_a_full_disk_is_said_before_anything_is_fetched(hub: MemoryHub, settings: Settings) -> None:
    hub.log("b", {}, entries=[replace(_huge(), path="model.safetensors")])
    with pytest.raises(StorageError, match="free"):
        get("b:v0", settings, hub)
    assert not hub.server.requests


def _huge() -> FileEntry:
    from registry.versions import Digest

    return FileEntry("x", 2**60, Digest("md5", "0" * 32))


def test_a_local_folder_is_copied_and_checked(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for path, raw in MODEL.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(raw)
    pulled = pull(str(folder), settings=settings)
    assert content(pulled) == served(MODEL)
    (folder / "config.json").write_bytes(b"{}")
    assert content(pulled) == served(MODEL)
    with pytest.raises(NotFoundError):
        pull(str(tmp_path / "none"), settings=settings)


def test_the_disk_holds_an_artifact_once(hub: MemoryHub, settings: Settings) -> None:
    hub.log("b", {"config.json": b"{}", "model.safetensors": weights(bytes(3_000_000))})
    get("b:v0", settings, hub)
    inodes = {
        status.st_ino: status.st_blocks * 512
        for path in settings.cache_dir.rglob("*")
        if (status := path.lstat()) and path.is_file()
    }
    assert sum(inodes.values()) < 3_200_000
