"""What a pull costs, in counts: requests, bytes that are fetched again, modules."""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import random
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry.config import Settings
from registry.errors import UnavailableError
from registry.pull import pull
from registry.retry import Limits
from registry.store.ingest import BLOCK_BYTES
from tests.backend_process import REPOSITORY
from tests.registry.file_server import Fault, FileServer, file_server
from tests.registry.memory_hub import MemoryHub

PROCESSES = 32
POINTS = 50
_HEADER = b'{"__metadata__":{}}'


def weights(size_bytes: int, seed: int) -> bytes:
    return struct.pack("<Q", len(_HEADER)) + _HEADER + random.Random(seed).randbytes(size_bytes)


FILES = {
    "a.safetensors": weights(3 * BLOCK_BYTES + 77, 1),
    "b.safetensors": weights(2 * BLOCK_BYTES - 1, 2),
    "config.json": b"{}",
}
TOTAL_BYTES = sum(map(len, FILES.values()))
WHOLE = Limits(connections=1, range_bytes=TOTAL_BYTES, attempts=1)
"""One connection that asks for whole files: what it has had is in order."""


@pytest.fixture
def hub() -> Iterator[MemoryHub]:
    with file_server() as server:
        hub = MemoryHub(server)
        hub.log("run-bert", FILES)
        yield hub


def settings_of(cache: Path, server: FileServer) -> Settings:
    return Settings(cache, cache, project="p", base_url=f"http://127.0.0.1:{server.port}")


def content(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_a_warm_pull_asks_nobody_and_imports_neither_wandb_nor_torch(
    hub: MemoryHub, tmp_path: Path
) -> None:
    hub.log("run-other", {"config.json": b'{"n": 1}'})
    settings = settings_of(tmp_path, hub.server)
    names = [f"me/p/{name}:v0" for name in ("run-bert", "run-other")]
    paths = [str(pull(name, settings=settings, hub=hub).path) for name in names]
    before = len(hub.server.requests), hub.server.connections
    script = (
        "import json, sys\n"
        "from registry.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n"
        "    print(json.dumps([end.code, sorted(sys.modules)]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "pull", *names],
        cwd=REPOSITORY,
        env={
            **os.environ,
            "RUNPORT_CACHE_DIR": str(tmp_path),
            "WANDB_BASE_URL": str(settings.base_url),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    *printed, last = done.stdout.splitlines()
    status, modules = json.loads(last)
    assert (status, printed) == (0, paths)
    assert "cached" in done.stderr
    assert (len(hub.server.requests), hub.server.connections) == before
    assert not {"wandb", "torch", "click", "http.client", "socket"} & set(modules)


@pytest.mark.parametrize("more", [["--json"], ["--quiet"], ["--verify"]])
def test_a_warm_pull_with_options_asks_nobody_either(
    hub: MemoryHub, tmp_path: Path, more: list[str]
) -> None:
    settings = settings_of(tmp_path, hub.server)
    path = str(pull("me/p/run-bert:v0", settings=settings, hub=hub).path)
    before = hub.server.connections
    done = subprocess.run(
        [sys.executable, "-m", "registry", "pull", *more, "me/p/run-bert:v0"],
        cwd=REPOSITORY,
        env={
            **os.environ,
            "RUNPORT_CACHE_DIR": str(tmp_path),
            "WANDB_BASE_URL": str(settings.base_url),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    printed = json.loads(done.stdout)["path"] if "--json" in more else done.stdout.strip()
    assert printed == path
    assert hub.server.connections == before


@pytest.mark.parametrize("how", ["cut", "kill"])
def test_interrupted_anywhere_at_most_one_block_of_a_file_is_fetched_again(
    hub: MemoryHub, tmp_path: Path, how: str
) -> None:
    rng = random.Random(how)
    server = hub.server
    for point in range(POINTS // 2):
        cache = tmp_path / str(point)
        raw = FILES[rng.choice(["a.safetensors", "b.safetensors"])]
        at = rng.randrange(len(raw))
        before_bytes = server.sent_bytes
        kind = "truncate" if how == "cut" else "stall"
        server.faults = {hashlib.md5(raw).hexdigest(): [Fault(kind, at)]}
        interrupt = _cut if how == "cut" else _kill
        interrupt(hub, cache, len(raw), at)
        server.faults = {}
        pulled = pull("me/p/run-bert:v0", settings=settings_of(cache, server), hub=hub)
        assert content(pulled.path) == FILES
        again_bytes = server.sent_bytes - before_bytes - TOTAL_BYTES
        assert 0 <= again_bytes <= BLOCK_BYTES


def _cut(hub: MemoryHub, cache: Path, _size_bytes: int, _at: int) -> None:
    with pytest.raises(UnavailableError):
        pull("me/p/run-bert:v0", settings=settings_of(cache, hub.server), hub=hub, limits=WHOLE)


def _kill(hub: MemoryHub, cache: Path, size_bytes: int, at: int) -> None:
    context = _forks()
    arguments = (hub.server.port, cache, hub.held, True, context.SimpleQueue())
    child = context.Process(target=_pull_in_child, args=arguments)
    child.start()
    deadline_s = time.monotonic() + 60
    # Killed once everything that was sent has arrived: what is then lost is ours to lose.
    while _marks(cache, size_bytes) != at // BLOCK_BYTES:
        assert child.is_alive()
        assert time.monotonic() < deadline_s
    child.kill()
    child.join()


def _marks(cache: Path, size_bytes: int) -> int | None:
    """Return how many blocks of the file are complete, None while it is not begun."""
    blocks = -(-size_bytes // BLOCK_BYTES)
    for path in (cache / "ingest").glob(f"md5-*-{size_bytes}.*.part"):
        with contextlib.suppress(FileNotFoundError):
            raw = path.read_bytes()
            if len(raw) == size_bytes + blocks:
                return raw[size_bytes:].count(1)
    return None


def _forks() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "registry.transfer", "registry.resolve"])
    return context


def _pull_in_child(port: int, cache: Path, held: list[Any], locks: bool, sink: Any) -> None:
    if not locks:
        import registry.store.locks

        registry.store.locks.single_flight = lambda *_, **__: contextlib.nullcontext(True)  # type: ignore[assignment]
    hub = MemoryHub(FileServer(port=port))
    hub.held = held
    settings = settings_of(cache, hub.server)
    pulled = pull("me/p/run-bert:v0", settings=settings, hub=hub, limits=WHOLE)
    sink.put((content(pulled.path) == FILES, pulled.fetched_bytes))


@pytest.mark.parametrize("locks", [True, False], ids=["locks", "no-op-locks"])
def test_many_processes_pull_one_version(hub: MemoryHub, tmp_path: Path, locks: bool) -> None:
    context = _forks()
    sink = context.Queue()
    arguments = (hub.server.port, tmp_path / "cache", hub.held, locks, sink)
    children = [context.Process(target=_pull_in_child, args=arguments) for _ in range(PROCESSES)]
    for child in children:
        child.start()
    results = [sink.get(timeout=120) for _ in children]
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * PROCESSES
    assert all(right for right, _ in results)
    if locks:
        assert hub.server.sent_bytes == TOTAL_BYTES
        assert sum(fetched_bytes for _, fetched_bytes in results) == TOTAL_BYTES
