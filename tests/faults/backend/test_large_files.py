"""Large files pass through in flat memory while other requests are answered."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import xxhash

from tests.backend_process import BackendProcess, run_flow
from tests.e2e.backend.interpreters import NEWEST
from tests.faults.backend.inspection import audit
from tests.faults.backend.test_many_clients import at_once
from tests.faults.backend.wire import Draft, Wire, manifest_of

MIB = 1 << 20
MAX_GROWTH_BYTES = 64 * MIB
LARGE_BYTES = 1024 * MIB
RUN = "large"


def blocks(size_bytes: int, first: int = 0) -> Iterator[bytes]:
    """Content that no two blocks share, made as it is needed, from block `first`."""
    for number in range(first, first + size_bytes // MIB):
        yield number.to_bytes(8, "big") * (MIB // 8)


def hash_of(chunks: Iterator[bytes]) -> tuple[str, int]:
    hasher, size_bytes = xxhash.xxh128(), 0
    for chunk in chunks:
        hasher.update(chunk)
        size_bytes += len(chunk)
    return hasher.hexdigest(), size_bytes


@dataclass
class Probe:
    """Small requests that another client makes all the while."""

    answered: int = 0


@contextmanager
def probed(backend: BackendProcess) -> Iterator[Probe]:
    """Ask in a thread until the block ends."""
    probe, over = Probe(), threading.Event()
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            with Wire(backend) as wire:
                while not over.is_set():
                    wire.ask('{project(name: "faults") {run(name: "large") {id}}}')
                    probe.answered += 1
                    over.wait(0.005)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield probe
    finally:
        over.set()
        thread.join()
        if errors:
            raise errors[0]


def peak_bytes(backend: BackendProcess) -> int:
    """The most memory that the backend has held since `forget_peak`."""
    assert backend.process
    status = Path(f"/proc/{backend.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def forget_peak(backend: BackendProcess) -> None:
    assert backend.process
    Path(f"/proc/{backend.process.pid}/clear_refs").write_text("5")


@contextmanager
def flat_memory(backend: BackendProcess) -> Iterator[None]:
    forget_peak(backend)
    before = peak_bytes(backend)
    yield
    growth = peak_bytes(backend) - before
    assert growth < MAX_GROWTH_BYTES, f"{growth / MIB:.0f} MiB"


def test_a_gigabyte_up_and_down(backend: BackendProcess) -> None:
    expected = hash_of(blocks(LARGE_BYTES))
    with Wire(backend) as wire, httpx.Client(timeout=120, verify=False) as plain:
        wire.start_run(RUN)
        url = wire.file_url(RUN, "large.bin")
        wire.ask("{viewer {id}}")
        with flat_memory(backend):
            with probed(backend) as during_upload:
                answer = plain.put(
                    url,
                    content=blocks(LARGE_BYTES),
                    headers={"content-length": str(LARGE_BYTES)},
                )
            assert answer.status_code == 200
            data = wire.ask(
                '{project(name: "faults") {run(name: "large") {files {edges {node'
                " {sizeBytes directUrl}}}}}}"
            )
            [edge] = data["project"]["run"]["files"]["edges"]
            with (
                probed(backend) as during_download,
                plain.stream("GET", edge["node"]["directUrl"]) as body,
            ):
                assert hash_of(body.iter_bytes(MIB)) == expected
        ranged = plain.get(
            edge["node"]["directUrl"], headers={"range": f"bytes={700 * MIB - 3}-{700 * MIB + 4}"}
        )
    assert int(edge["node"]["sizeBytes"]) == LARGE_BYTES
    assert ranged.status_code == 206
    edges = b"".join(blocks(2 * MIB, first=699))
    assert ranged.content == edges[MIB - 3 : MIB + 5]
    assert during_upload.answered >= 10
    assert during_download.answered >= 10


def test_many_transfers_at_once(backend: BackendProcess) -> None:
    """As many as the SDK makes of a large file's parts: still flat."""
    size_bytes, count = 32 * MIB, 24
    expected = hash_of(blocks(size_bytes))

    def transfer(number: int) -> None:
        with Wire(backend) as wire, httpx.Client(timeout=120, verify=False) as plain:
            url = wire.file_url(RUN, f"{number}.bin")
            headers = {"content-length": str(size_bytes)}
            assert plain.put(url, content=blocks(size_bytes), headers=headers).status_code == 200
            data = wire.ask(
                'query($n: [String]) {project(name: "faults") {run(name: "large")'
                " {files(names: $n) {edges {node {directUrl}}}}}}",
                n=[f"{number}.bin"],
            )
            [edge] = data["project"]["run"]["files"]["edges"]
            with plain.stream("GET", edge["node"]["directUrl"]) as body:
                assert hash_of(body.iter_bytes(MIB)) == expected

    with Wire(backend) as wire:
        wire.start_run(RUN)
        wire.save_file(RUN, "first.bin", b"first")
    with flat_memory(backend):
        at_once(*(partial(transfer, number) for number in range(count)))


def test_a_file_in_parts(backend: BackendProcess) -> None:
    _in_parts(backend, size_bytes=300 * MIB, part_bytes=64 * MIB)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_file_of_more_than_2_gib_in_parts(backend: BackendProcess) -> None:
    _in_parts(backend, size_bytes=2200 * MIB, part_bytes=100 * MIB)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_more_than_2_gib_with_the_sdk(backend: BackendProcess, tmp_path: Path) -> None:
    """The unmodified SDK chooses parts by itself, up and down."""
    script = Path(__file__).parent / "flows" / "huge_artifact.py"
    (tmp_path / "home").mkdir()
    with Wire(backend) as wire:
        wire.log_artifact("small", {"small.txt": b"small"})
    with flat_memory(backend):
        run_flow(backend, NEWEST, script, tmp_path / "home", "huge", timeout_s=600)
    audit(backend.data_dir)


def _in_parts(backend: BackendProcess, *, size_bytes: int, part_bytes: int) -> None:
    """Upload a file in parts by the raw protocol, join, commit, read back."""
    parts = list(_parts(size_bytes, part_bytes))
    digest = hashlib.md5()
    for block in blocks(size_bytes):
        digest.update(block)
    entry = {"digest": base64.b64encode(digest.digest()).decode(), "size": size_bytes}
    with Wire(backend) as wire, httpx.Client(timeout=240, verify=False) as plain:
        wire.start_run(RUN)
        draft = wire.begin("large", {"large.bin": b""})
        target = _target(wire, draft, str(entry["digest"]), parts)
        with flat_memory(backend):
            for number, url in _part_urls(target):
                length = min(part_bytes, size_bytes - (number - 1) * part_bytes)
                content = blocks(length, first=(number - 1) * part_bytes // MIB)
                answer = plain.put(url, content=content, headers={"content-length": str(length)})
                assert answer.headers["etag"].strip('"') == parts[number - 1]["hexMD5"]
            with probed(backend) as during_join:
                wire.complete_multipart(draft, target, parts)
            wire.upload_manifest(draft, manifest_of({"large.bin": entry}))
            wire.commit(draft)
            with plain.stream("GET", _file_url(wire)) as body:
                assert hash_of(body.iter_bytes(MIB)) == hash_of(blocks(size_bytes))
    assert during_join.answered >= 3
    audit(backend.data_dir)


def _parts(size_bytes: int, part_bytes: int) -> Iterator[dict[str, object]]:
    for start in range(0, size_bytes, part_bytes):
        md5 = hashlib.md5()
        for block in blocks(min(part_bytes, size_bytes - start), first=start // MIB):
            md5.update(block)
        yield {"partNumber": start // part_bytes + 1, "hexMD5": md5.hexdigest()}


def _target(
    wire: Wire, draft: Draft, digest: str, parts: Sequence[Mapping[str, object]]
) -> dict[str, Any]:
    file = {
        "artifactID": draft.id,
        "name": "large.bin",
        "md5": digest,
        "uploadPartsInput": parts,
    }
    data = wire.ask(
        "mutation($i: CreateArtifactFilesInput!) {createArtifactFiles(input: $i) {files {edges"
        " {node {storagePath uploadMultipartUrls {uploadID uploadUrlParts"
        " {partNumber uploadUrl}}}}}}}",
        i={"artifactFiles": [file], "storageLayout": "V2"},
    )
    [edge] = data["createArtifactFiles"]["files"]["edges"]
    node: dict[str, Any] = edge["node"]
    return node


def _part_urls(target: Mapping[str, Any]) -> list[tuple[int, str]]:
    parts = target["uploadMultipartUrls"]["uploadUrlParts"]
    return [(part["partNumber"], part["uploadUrl"]) for part in parts]


def _file_url(wire: Wire) -> str:
    data = wire.ask(
        '{project(name: "faults") {artifact(name: "large:v0") {files {edges {node {directUrl}}}}}}'
    )
    [edge] = data["project"]["artifact"]["files"]["edges"]
    return str(edge["node"]["directUrl"])
