"""Pulls that are killed, and pulls by many processes at once."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import struct
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.store.ingest import BLOCK_BYTES
from tests.backend_process import REPOSITORY
from tests.registry.file_server import FileServer, file_server

SIZE = 12 * BLOCK_BYTES + 321
PULL = textwrap.dedent(
    """
    import contextlib, json, sys
    from pathlib import Path
    from registry.config import Settings
    from registry.pull import pull
    from registry.retry import Limits
    from tests.registry.file_server import FileServer
    from tests.registry.memory_hub import MemoryHub

    port, cache, files, locks = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]), sys.argv[4]
    if locks == "no-op":
        import registry.store.locks as store_locks
        store_locks.single_flight = lambda *_, **__: contextlib.nullcontext(True)
    server = FileServer(port=port)
    hub = MemoryHub(server)
    hub.log("b", {})
    from dataclasses import replace
    from registry.versions import Digest, FileEntry
    entries = tuple(FileEntry(p, n, Digest("md5", m)) for p, n, m in files)
    hub.held[0] = replace(hub.held[0], files=entries)
    settings = Settings(Path(cache), Path(cache), project="p")
    limits = Limits(range_bytes=4 * 1024 * 1024, first_wait_s=0.01)

    class Announce:
        def started(self, name, total_bytes): print("started", flush=True)
        def advanced(self, count_bytes): pass
        def finished(self): pass

    pulled = pull("b:v0", settings=settings, hub=hub, limits=limits, progress=Announce())
    # Not ru_maxrss: that begins with what the parent had when it forked.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak_bytes = int(status["VmHWM"].split()[0]) * 1024
    print(json.dumps([str(pulled.path), pulled.fetched_bytes, peak_bytes]))
    """
)


def _weights() -> bytes:
    header = b'{"__metadata__":{}}'
    payload = random.Random(3).randbytes(SIZE - 8 - len(header))
    return struct.pack("<Q", len(header)) + header + payload


FILES = {"config.json": b"{}", "model.safetensors": _weights()}


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as state:
        state.files = {hashlib.md5(raw).hexdigest(): raw for raw in FILES.values()}
        yield state


def start(
    server: FileServer, cache: Path, locks: str = "real", files: dict[str, bytes] = FILES
) -> subprocess.Popen[str]:
    listed = [(p, len(raw), hashlib.md5(raw).hexdigest()) for p, raw in files.items()]
    return subprocess.Popen(
        [sys.executable, "-c", PULL, str(server.port), str(cache), json.dumps(listed), locks],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    )


def result(process: subprocess.Popen[str]) -> tuple[Path, int]:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    path, fetched_bytes, _ = json.loads(output.splitlines()[-1])
    return Path(path), fetched_bytes


def check(path: Path) -> None:
    assert {p.name: p.read_bytes() for p in path.iterdir()} == FILES


def audit(cache: Path) -> None:
    """Everything that is visible is whole: blobs hash right, records have their snapshots."""
    for blob in (cache / "blobs").rglob("*"):
        if blob.is_file():
            assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    for record in (cache / "versions").rglob("*.json"):
        if not record.name.startswith("."):
            check(cache / "snapshots" / json.loads(record.read_bytes())["snapshot"])


def test_a_killed_pull_leaves_nothing_half_visible_and_the_next_goes_on(
    server: FileServer, tmp_path: Path
) -> None:
    rng = random.Random(5)
    resumed = 0
    for number in range(8):
        cache = tmp_path / str(number)
        before_bytes = server.sent_bytes
        process = start(server, cache)
        assert process.stdout
        assert process.stdout.readline() == "started\n"
        # A gate, not a sleep: killed once so many bytes have left the server.
        target_bytes = rng.randrange(1, SIZE)
        while server.sent_bytes - before_bytes < target_bytes and process.poll() is None:
            pass
        process.send_signal(signal.SIGKILL)
        process.communicate()
        audit(cache)
        path, fetched_bytes = result(start(server, cache))
        check(path)
        audit(cache)
        resumed += fetched_bytes < SIZE
        assert not list((cache / "ingest").iterdir())
    assert resumed, "at least one pull went on from where the killed one was"


@pytest.mark.parametrize("locks", ["real", "no-op"])
def test_many_processes_pull_one_version(server: FileServer, tmp_path: Path, locks: str) -> None:
    processes = [start(server, tmp_path / "cache", locks) for _ in range(6)]
    results = [result(process) for process in processes]
    for path, _ in results:
        check(path)
    audit(tmp_path / "cache")
    if locks == "real":
        assert sum(fetched_bytes for _, fetched_bytes in results) == sum(map(len, FILES.values()))


def test_memory_stays_flat_whatever_the_size(server: FileServer, tmp_path: Path) -> None:
    peaks_bytes = []
    for size_bytes in (1_000_000, 200_000_000):
        body = struct.pack("<Q", 2) + b"{}" + bytes(size_bytes)
        server.files[hashlib.md5(body).hexdigest()] = body
        process = start(server, tmp_path / str(size_bytes), files={"model.safetensors": body})
        output, _ = process.communicate(timeout=120)
        peaks_bytes.append(json.loads(output.splitlines()[-1])[2])
    assert peaks_bytes[1] - peaks_bytes[0] < 32_000_000
