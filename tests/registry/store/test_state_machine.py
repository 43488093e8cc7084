"""The cache under any sequence of pulls, leases, pins, prunes, kills and damage.

Kills are real: a forked child does the work and kills itself, with SIGKILL, at the
n-th system call that makes something visible or durable. Whatever happened: what a
living server holds or somebody pinned is there, whole; and whatever can be seen in
the cache (a version, a snapshot, a blob) has exactly the bytes that were logged.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from registry.store import Store
from registry.store.blobs import sha256_of
from registry.store.claims import Lease
from registry.store.prune import Budget
from registry.store.snapshots import snapshot_digest
from tests.registry.file_server import file_server
from tests.registry.memory_hub import MemoryHub
from tests.registry.store.models import get, model, settings_of

SEAM = ("replace", "rename", "fsync", "link", "unlink", "mkdir", "utime")
CHILD_TIMEOUT_S = 30
VERSIONS = 4
KILLED = -signal.SIGKILL

versions = st.integers(0, VERSIONS - 1)
budgets = st.sampled_from([0, 0, 1500, 3500, 10_000])
kill_points = st.integers(1, 30)


def child(work: Callable[[], object], *, dies_at: int | None = None) -> int:
    """Fork; do the work there; return its status, `KILLED` when it killed itself."""
    return finish(start(work, dies_at=dies_at))


def start(work: Callable[[], object], *, dies_at: int | None = None) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        signal.alarm(CHILD_TIMEOUT_S)
        if dies_at is not None:
            die_at(dies_at)
        work()
        status = 0
    finally:
        os._exit(status)


def finish(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def die_at(point: int) -> None:
    """Have this process kill itself before its `point`-th call of the seam."""
    calls = 0

    def watched(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            nonlocal calls
            calls += 1
            if calls == point:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return call

    for name in SEAM:
        setattr(os, name, watched(getattr(os, name)))


@dataclass
class Server:
    """A process that serves a version; its lease names it."""

    pid: int
    number: int
    lease: Lease


class Cache(RuleBasedStateMachine):
    """One cache, one W&B server, processes that come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.exits = ExitStack()
        self.root = Path(tempfile.mkdtemp(prefix="runport-cache-"))
        self.exits.callback(shutil.rmtree, self.root)
        self.settings = settings_of(self.root)
        self.hub = MemoryHub(self.exits.enter_context(file_server()))
        # Two versions hold the same bytes; all share their configuration.
        self.models = [model(seed, 1000) for seed in (0, 1, 2, 1)]
        for files in self.models:
            self.hub.log("run-bert", files)
        self.digests: dict[int, str] = {}
        self.servers: list[Server] = []
        self.pinned: set[int] = set()

    def teardown(self) -> None:
        for server in self.servers:
            os.kill(server.pid, signal.SIGKILL)
            finish(server.pid)
        self.exits.close()

    @property
    def store(self) -> Store:
        # A new one each time: all state is on disk, as after a restart.
        return Store(self.settings.cache_dir, "")

    def pull(self, number: int, **options: object) -> Path:
        pulled = get(f"run-bert:v{number}", self.settings, self.hub, **options)
        self.digests[number] = pulled.digest
        return pulled.path

    def held(self) -> set[int]:
        return {server.number for server in self.servers}

    @rule(number=versions)
    def pull_it(self, number: int) -> None:
        self.check(self.pull(number), number)

    @rule(number=versions, point=kill_points)
    def pull_and_be_killed(self, number: int, point: int) -> None:
        assert child(lambda: self.pull(number), dies_at=point) in {0, KILLED}

    @rule(number=versions)
    def serve(self, number: int) -> None:
        """As a server does: pull, hold, and pull again if a prune was between."""
        pid = start(lambda: time.sleep(CHILD_TIMEOUT_S))
        path = self.pull(number)
        lease = self.store.claims.hold(path.name, pid=pid)
        assert lease is not None
        export = self.store.layout.exports / f"{path.name[:32]}-00"
        export.mkdir(parents=True, exist_ok=True)
        self.servers.append(Server(pid, number, lease))

    @precondition(lambda self: self.servers)
    @rule(killed=st.booleans(), data=st.data())
    def stop_a_server(self, killed: bool, data: st.DataObject) -> None:
        server = self.servers.pop(data.draw(st.integers(0, len(self.servers) - 1)))
        if not killed:
            server.lease.release()
        os.kill(server.pid, signal.SIGKILL)
        finish(server.pid)

    @rule(number=versions)
    def pin(self, number: int) -> None:
        path = self.pull(number)
        self.store.marks.pin(path.name, f"v{number}")
        self.pinned.add(number)

    @precondition(lambda self: self.pinned)
    @rule(data=st.data())
    def unpin(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.pinned)))
        self.store.marks.unpin(self.digests[number])
        same = {n for n in self.pinned if self.digests[n] == self.digests[number]}
        self.pinned -= same

    @rule(max_bytes=budgets)
    def prune(self, max_bytes: int) -> None:
        choice = self.store.prune(Budget(max_bytes, leftover_age_s=0))
        assert choice.after_bytes <= max_bytes or choice.kept
        assert self.store.census().total_bytes == choice.after_bytes

    @rule(max_bytes=budgets, point=kill_points)
    def prune_and_be_killed(self, max_bytes: int, point: int) -> None:
        budget = Budget(max_bytes, leftover_age_s=0)
        assert child(lambda: self.store.prune(budget), dies_at=point) in {0, KILLED}

    @rule(number=versions, others=st.lists(st.integers(0, 1500), max_size=2))
    def serve_while_others_prune(self, number: int, others: list[int]) -> None:
        def serve() -> None:
            for _ in range(20):
                path = self.pull(number)
                lease = self.store.claims.hold(path.name)
                if lease is not None:
                    self.check(path, number)
                    lease.release()
                    return
            raise AssertionError("pruned again and again")

        serving = start(serve)
        pruning = [start(partial(self.store.prune, Budget(most, 0))) for most in others]
        self.store.prune(Budget(0))
        assert [finish(pid) for pid in (serving, *pruning)] == [0] * (1 + len(others))

    @rule(number=versions)
    def damage_and_pull(self, number: int) -> None:
        """Bytes of a version that nobody uses change, with their time kept."""
        path = self.pull(number)
        if {self.digests[n] for n in self.held() | self.pinned} & {path.name}:
            return
        file = path / "model.safetensors"
        status = file.stat()
        file.chmod(0o600)
        with file.open("r+b") as stream:
            stream.seek(-1, os.SEEK_END)
            stream.write(b"\xff")
        file.chmod(0o444)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        self.check(self.pull(number, verify=True), number)
        # The other version with these bytes may still rest on the damaged file.
        for record in self.store.records.all():
            self.pull(int(record.version.version[1:]), verify=True)

    @invariant()
    def what_is_in_use_is_there(self) -> None:
        for number in self.held() | self.pinned:
            self.check(self.store.layout.snapshot(self.digests[number]), number)
        for server in self.servers:
            digest = self.digests[server.number]
            assert (self.store.layout.exports / f"{digest[:32]}-00").is_dir()

    @invariant()
    def what_is_seen_is_right(self) -> None:
        store = self.store
        for record in store.records.all():
            number = int(record.version.version[1:])
            self.check(store.layout.snapshot(record.snapshot), number)
        for path in store.layout.blobs.rglob("*"):
            assert path.is_dir() or sha256_of(path) == path.name
        if store.layout.snapshots.is_dir():
            for folder in store.layout.snapshots.glob("[0-9a-f]*"):
                files = {p.relative_to(folder).as_posix(): sha256_of(p) for p in folder.iterdir()}
                assert snapshot_digest(files) == folder.name

    def check(self, folder: Path, number: int) -> None:
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == self.models[number]


QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


def run(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        Cache,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=QUIET,
        ),
    )


def test_nothing_in_use_disappears_and_nothing_unverified_appears() -> None:
    run(examples=14, steps=16)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_the_same_for_longer() -> None:
    run(examples=500, steps=60)
