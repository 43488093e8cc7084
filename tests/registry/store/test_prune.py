from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from registry.config import Settings
from registry.store import Store
from registry.store.owners import owner_mark
from registry.store.prune import Budget
from registry.versions import Digest
from tests.registry.file_server import file_server
from tests.registry.memory_hub import MemoryHub
from tests.registry.store.models import get, model, settings_of

NOTHING = Budget(max_bytes=0)


@pytest.fixture
def hub() -> Iterator[MemoryHub]:
    with file_server() as server:
        yield MemoryHub(server)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of(tmp_path)


@pytest.fixture
def store(settings: Settings) -> Store:
    return Store(settings.cache_dir, "")


def used(store: Store, snapshot: str, time_s: float) -> None:
    os.utime(store.layout.used / snapshot, (time_s, time_s))


def kinds(store: Store, budget: Budget = NOTHING, **options: bool) -> list[str]:
    return sorted(removal.kind for removal in store.prune(budget, **options).removals)


def disk_bytes(folder: Path) -> int:
    inodes = {}
    for path in folder.rglob("*"):
        if path.is_file() and path.parent.name not in {"locks"}:
            status = path.stat()
            inodes[status.st_ino] = status.st_size
    return sum(inodes.values())


def test_the_least_recently_used_go_first(hub: MemoryHub, settings: Settings, store: Store) -> None:
    for seed in range(3):
        hub.log("run-bert", model(seed))
    pulled = [get(f"run-bert:v{n}", settings, hub) for n in range(3)]
    for age, one in zip((30, 10, 20), pulled, strict=True):
        used(store, one.digest, time.time() - age)
    whole = store.census().total_bytes
    choice = store.prune(Budget(max_bytes=whole - 1))
    assert [removal.name for removal in choice.removals] == ["me/p/run-bert:v0"]
    assert not pulled[0].path.exists()
    choice = store.prune(Budget(max_bytes=choice.after_bytes - 1))
    assert [removal.name for removal in choice.removals] == ["me/p/run-bert:v2"]
    assert pulled[1].path.is_dir()


def test_a_cached_hit_is_a_use(hub: MemoryHub, settings: Settings, store: Store) -> None:
    hub.log("run-bert", model(1))
    pulled = get("run-bert:v0", settings, hub)
    used(store, pulled.digest, 1000)
    assert get("run-bert:v0", settings, hub).cached
    assert (store.marks.last_used_s(pulled.digest) or 0) > time.time() - 60


def test_shared_bytes_stay_while_anybody_needs_them_and_are_counted_once(
    hub: MemoryHub, settings: Settings, store: Store
) -> None:
    hub.log("run-bert", model(1))
    hub.log("run-bert", {**model(1), "tokenizer.json": b"{}"})
    first, second = (get(f"run-bert:v{n}", settings, hub) for n in range(2))
    used(store, first.digest, 1000)
    census = store.census()
    assert census.total_bytes == sum(map(len, model(1).values())) + 2
    choice = store.prune(Budget(max_bytes=census.total_bytes - 1))
    # The older one frees nothing, so that the other has to go as well.
    assert [removal.size_bytes for removal in choice.removals] == [0, census.total_bytes]
    assert not second.path.exists()
    assert choice.after_bytes == 0


def test_a_budget_of_nothing_leaves_nothing(
    hub: MemoryHub, settings: Settings, store: Store
) -> None:
    hub.log("run-bert", model(1))
    get("run-bert:v0", settings, hub)
    exports = store.layout.exports / f"{get('run-bert:v0', settings, hub).digest[:32]}-0011"
    exports.mkdir(parents=True)
    (exports / "model.onnx").write_bytes(b"x" * 500)
    before = store.census()
    assert before.exports_bytes == 500
    choice = store.prune(NOTHING)
    assert choice.before_bytes == before.total_bytes
    assert choice.after_bytes == store.census().total_bytes == 0
    assert not exports.exists()
    assert not any(store.layout.trash.iterdir())
    assert not any(path.is_file() for path in (store.layout.root / "digests").rglob("*"))
    again = get("run-bert:v0", settings, hub)
    assert again.fetched_bytes == sum(map(len, model(1).values()))


def test_a_dry_run_changes_nothing(hub: MemoryHub, settings: Settings, store: Store) -> None:
    hub.log("run-bert", model(1))
    pulled = get("run-bert:v0", settings, hub)
    before = disk_bytes(settings.cache_dir)
    assert kinds(store, dry_run=True) == ["version"]
    assert disk_bytes(settings.cache_dir) == before
    assert get("run-bert:v0", settings, hub).path == pulled.path


def test_pinned_stay_until_they_are_unpinned(
    hub: MemoryHub, settings: Settings, store: Store
) -> None:
    hub.log("run-bert", model(1))
    pulled = get("run-bert:v0", settings, hub)
    store.marks.pin(pulled.digest, "me/p/run-bert:v0")
    choice = store.prune(NOTHING)
    assert [(kept.name, kept.reason) for kept in choice.kept] == [("me/p/run-bert:v0", "pinned")]
    assert pulled.path.is_dir()
    assert store.marks.unpin(pulled.digest)
    assert not store.marks.unpin(pulled.digest)
    assert kinds(store) == ["version"]


def test_what_a_server_holds_stays_with_its_exports(
    hub: MemoryHub, settings: Settings, store: Store
) -> None:
    hub.log("run-bert", model(1))
    pulled = get("run-bert:v0", settings, hub)
    export = store.layout.exports / f"{pulled.digest[:32]}-00"
    export.mkdir(parents=True)
    lease = store.claims.hold(pulled.digest)
    assert lease is not None
    with lease:
        assert [kept.reason for kept in store.prune(NOTHING).kept] == ["in use"]
        assert pulled.path.is_dir()
        assert export.is_dir()
    assert kinds(store) == ["version"]


def test_a_lease_ends_with_its_holder_however_that_ends(
    hub: MemoryHub, settings: Settings, store: Store
) -> None:
    hub.log("run-bert", model(1))
    pulled = get("run-bert:v0", settings, hub)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as holder:
        # As a preparing child does for its server.
        assert store.claims.hold(pulled.digest, pid=holder.pid) is not None
        assert kinds(store) == []
        holder.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
        # A zombie holds nothing.
        assert kinds(store) == ["lease", "version"]


def test_nothing_can_be_held_that_is_not_there(settings: Settings, store: Store) -> None:
    assert store.claims.hold("ab" * 32) is None
    assert not any(store.layout.leases.iterdir())


def test_what_a_pull_is_about_to_commit_stays(
    hub: MemoryHub, settings: Settings, store: Store
) -> None:
    hub.log("run-bert", model(1))
    pulled = get("run-bert:v0", settings, hub)
    sizes = [len(raw) for raw in model(1).values()]
    with store.claims.pulling(sizes):
        assert [kept.reason for kept in store.prune(NOTHING).kept] == ["being pulled"]
    with store.claims.pulling(sizes[:1]):
        # It may want the configuration, but not the version as a whole.
        store.prune(NOTHING)
    assert not pulled.path.exists()
    blobs = [path for path in store.layout.blobs.rglob("*") if path.is_file()]
    assert [path.stat().st_size for path in blobs] == sizes[:1]


def test_a_half_written_claim_claims_all(hub: MemoryHub, settings: Settings, store: Store) -> None:
    hub.log("run-bert", model(1))
    get("run-bert:v0", settings, hub)
    (store.layout.leases / f"pull.{owner_mark()}.99").write_bytes(b"[12")
    assert [kept.reason for kept in store.prune(NOTHING).kept] == ["being pulled"]


def test_leftovers_of_the_killed_go_by_age_and_those_at_work_stay(
    settings: Settings, store: Store
) -> None:
    digest = Digest("md5", "ab" * 16)
    at_work = store.ingest.open(digest, 5)
    idle = store.layout.ingest / f"md5-{'cd' * 16}-7.part"
    idle.write_bytes(b"1234567\x00")
    killed = store.layout.ingest / f"md5-{'ef' * 16}-7.{owner_mark(2**22 + 1)}.0.part"
    killed.write_bytes(b"1234567\x00")
    half = store.layout.snapshots / ".0011.tmp"
    half.mkdir(parents=True)
    (half / "config.json").write_text("{}")
    assert kinds(store, Budget()) == ["temporary"]
    assert kinds(store, Budget(leftover_age_s=0)) == ["partial", "partial"]
    assert at_work.path.exists()
    assert not half.exists()
    at_work.close()


def test_a_blob_without_a_version_goes_like_a_leftover(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "weights"
    source.write_bytes(b"x" * 99)
    sha256, _ = store.take_in(source)
    assert kinds(store, Budget()) == []
    with store.claims.pulling([99]):
        assert kinds(store, Budget(leftover_age_s=0)) == []
    assert kinds(store, Budget(leftover_age_s=0)) == ["blob"]
    assert not store.layout.blob(sha256).exists()


def test_versions_of_other_servers_are_entries_too(
    hub: MemoryHub, settings: Settings, store: Store
) -> None:
    hub.log("run-bert", model(1))
    get("run-bert:v0", settings, hub)
    other = Store(settings.cache_dir, "https://wandb.example.com")
    assert [entry.names for entry in other.census().entries] == [("me/p/run-bert:v0",)]
    other.prune(NOTHING)
    assert store.records.all() == []


def test_who_claims_while_a_prune_chooses_waits_for_it(
    hub: MemoryHub, settings: Settings, store: Store
) -> None:
    """The process that prunes removes the snapshot while the claimant waits."""
    hub.log("run-bert", model(1))
    pulled = get("run-bert:v0", settings, hub)
    script = (
        "import shutil, sys\n"
        "from pathlib import Path\n"
        "from registry.store import Store\n"
        "store = Store(Path(sys.argv[1]), '')\n"
        "with store.claims.pruning():\n"
        "    print('choosing', flush=True)\n"
        "    input()\n"
        "    shutil.rmtree(sys.argv[2])\n"
    )
    command = [sys.executable, "-c", script, str(settings.cache_dir), str(pulled.path)]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as pruner,
        ThreadPoolExecutor() as threads,
    ):
        assert pruner.stdout
        assert pruner.stdin
        assert pruner.stdout.readline() == b"choosing\n"
        holding = threads.submit(store.claims.hold, pulled.digest)
        deadline_s = time.monotonic() + 30
        while not store.claims.held():
            assert time.monotonic() < deadline_s
        # It has claimed, and waits; only now does the prune remove what it had chosen.
        pruner.stdin.write(b"\n")
        pruner.stdin.close()
        assert holding.result() is None
    assert not pulled.path.exists()
    assert not store.claims.held()


def test_a_killed_prune_keeps_nobody_waiting(
    hub: MemoryHub, settings: Settings, store: Store
) -> None:
    hub.log("run-bert", model(1))
    pulled = get("run-bert:v0", settings, hub)
    (store.layout.leases / f"prune.{owner_mark(2**22 + 1)}.0").write_bytes(b"")
    lease = store.claims.hold(pulled.digest)
    assert lease is not None
    lease.release()
    assert kinds(store, Budget()) == ["lease"]


def test_what_looks_wrong_while_a_prune_is_at_it_is_looked_at_again(
    hub: MemoryHub, settings: Settings, store: Store
) -> None:
    """Between its look and its verdict, somebody pulls the version again."""
    hub.log("run-bert", model(1))
    pulled = get("run-bert:v0", settings, hub)
    aside = pulled.path.with_name("aside")
    with ThreadPoolExecutor() as threads:
        with store.claims.pruning():
            pulled.path.rename(aside)
            finding = threads.submit(get, "run-bert:v0", settings, hub)
            deadline_s = time.monotonic() + 30
            while not store.claims.pulls():
                assert time.monotonic() < deadline_s
            aside.rename(pulled.path)
        assert finding.result().cached
    assert pulled.path.is_dir()
    assert not store.layout.quarantine.exists()
