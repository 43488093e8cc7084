"""cache, completion: without any server, for none of them asks one."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path

import click
import pytest

from registry.cli.cache import CachePin, CachePrune, CacheRow, CacheSize
from registry.cli.units import parse_duration, parse_size
from registry.pulled import PulledVersion
from registry.store import Store
from tests.registry.cli.conftest import Shell
from tests.registry.file_server import file_server
from tests.registry.memory_hub import MemoryHub
from tests.registry.store.models import get, model, settings_of


@pytest.fixture
def pulled(tmp_path: Path) -> list[PulledVersion]:
    """Three versions, used one, two and three hours ago."""
    with file_server() as server:
        hub = MemoryHub(server)
        settings = settings_of(tmp_path)
        for seed in range(3):
            hub.log("run-bert", model(seed, 10_000), "best")
        pulled = [get(f"run-bert:{which}", settings, hub) for which in ("v0", "v1", "best")]
    now_s = (tmp_path / "cache" / "used" / pulled[0].digest).stat().st_mtime
    for hours, one in enumerate(reversed(pulled), start=1):
        time_s = now_s - 3600 * hours
        os.utime(tmp_path / "cache" / "used" / one.digest, (time_s, time_s))
    return pulled


@pytest.fixture
def registry(tmp_path: Path) -> Shell:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "WANDB_PROJECT": "p",
        "WANDB_ENTITY": "me",
        "WANDB_BASE_URL": "",
        "RUNPORT_CACHE_DIR": str(tmp_path / "cache"),
        "RUNPORT_DATA_DIR": str(tmp_path / "data"),
    }
    return Shell(environment, tmp_path)


def test_size_says_what_the_cache_is_made_of(
    registry: Shell, pulled: list[PulledVersion], tmp_path: Path
) -> None:
    size = registry.json(CacheSize, "cache", "size")
    assert isinstance(size, CacheSize)
    assert size.path == tmp_path / "cache"
    distinct = {raw for seed in range(3) for raw in model(seed, 10_000).values()}
    assert size.total_bytes == size.versions_bytes == sum(map(len, distinct))
    assert registry.ok("cache", "size").endswith("kB")
    assert registry.ok("cache", "dir") == str(tmp_path / "cache")


def test_list_shows_the_last_used_first(registry: Shell, pulled: list[PulledVersion]) -> None:
    rows = registry.json(list[CacheRow], "cache", "list")
    assert isinstance(rows, list)
    assert [row.names for row in rows] == [(f"me/p/run-bert:v{n}",) for n in (2, 1, 0)]
    assert [row.digest for row in rows] == [one.digest for one in reversed(pulled)]
    lines = registry.ok("cache", "list").splitlines()
    assert "1 hour ago" in lines[0]
    assert f"@{pulled[2].digest[:12]}" in lines[0]


def test_pinned_versions_survive_a_prune(registry: Shell, pulled: list[PulledVersion]) -> None:
    pin = registry.json(CachePin, "cache", "pin", "run-bert:v0")
    assert pin == CachePin("me/p/run-bert:v0", (pulled[0].digest,), pinned=True, changed=True)
    # An alias means what it meant when last heard of; a digest is a name as well.
    assert registry.ok("cache", "pin", "run-bert:best") == "me/p/run-bert:v2"
    assert registry.ok("cache", "unpin", f"@{pulled[2].digest[:12]}") == "me/p/run-bert:v2"
    done = registry.json(CachePrune, "cache", "prune", "--max-size", "0", "-y")
    assert isinstance(done, CachePrune)
    assert [one.name for one in done.removed] == ["me/p/run-bert:v1", "me/p/run-bert:v2"]
    assert [(one.name, one.reason) for one in done.kept] == [("me/p/run-bert:v0", "pinned")]
    assert [one.path.exists() for one in pulled] == [True, False, False]
    assert registry("cache", "pin", "run-bert:v2").returncode == 3


def test_a_budget_evicts_what_was_not_used_for_longest(
    registry: Shell, pulled: list[PulledVersion]
) -> None:
    dry = registry.json(CachePrune, "cache", "prune", "--max-size", "25kB", "--dry-run")
    assert isinstance(dry, CachePrune)
    assert pulled[0].path.is_dir()
    done = registry.json(CachePrune, "cache", "prune", "--max-size", "25kB", "-y")
    assert done == dataclasses.replace(dry, dry_run=False)
    assert [one.path.exists() for one in pulled] == [False, True, True]


def test_nothing_is_evicted_unasked(registry: Shell, pulled: list[PulledVersion]) -> None:
    refused = registry("cache", "prune", "--max-size", "0")
    assert refused.returncode == 2
    assert "-y" in refused.stderr
    refused = registry("cache", "prune", "--max-size", "0", "--json")
    assert json.loads(refused.stdout)["code"] == "usage"
    assert all(one.path.is_dir() for one in pulled)
    # What is merely left over goes without a question.
    leftover = pulled[0].path.parents[1] / "ingest" / "md5-00-1.part"
    leftover.parent.mkdir(exist_ok=True)
    leftover.write_bytes(b"1\x00")
    assert registry.ok("cache", "prune", "--leftover-age", "0").split() == [
        "2", "B", "partial", leftover.name,
    ]  # fmt: skip


def test_completion_knows_commands_and_cached_names(
    registry: Shell, pulled: list[PulledVersion]
) -> None:
    def complete(*words: str) -> list[str]:
        registry.extra = {
            "_REGISTRY_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(("registry", *words)),
            "COMP_CWORD": str(len(words)),
        }
        done = registry()
        assert done.returncode == 0, done.stderr
        return [line.partition(",")[2] for line in done.stdout.splitlines()]

    assert "push" in complete("pu")
    assert complete("cache", "un") == ["unpin"]
    whole = ["run-bert", "run-bert:best", "run-bert:v0", "run-bert:v1", "run-bert:v2"]
    assert complete("pull", "run") == whole
    assert complete("diff", "run-bert:v0", "run-bert:b") == ["run-bert:best"]
    assert complete("pull", "--of") == ["--offline"]
    registry.extra = {}


@pytest.mark.parametrize("shell_name", ["bash", "zsh", "fish"])
def test_completion_scripts_serve_both_names(registry: Shell, shell_name: str) -> None:
    script = registry.ok("completion", shell_name)
    assert "_REGISTRY_COMPLETE" in script
    assert "_RUNPORT_COMPLETE" in script


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("0", 0), ("10", 10), ("1kB", 1000), ("1 KiB", 1024), ("1.5GB", 1_500_000_000), ("2G", 2e9)],
)
def test_sizes(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0), ("90", 90), ("30m", 1800), ("1.5d", 129600)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "GB", "-1", "1 XB", "1e3", "nan"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(click.BadParameter):
        parse_size(text)
    with pytest.raises(click.BadParameter):
        parse_duration(text)


def test_a_warm_pull_notes_its_use_without_reading_the_sdk(
    pulled: list[PulledVersion], tmp_path: Path
) -> None:
    script = (
        "import sys, registry\n"
        "from pathlib import Path\n"
        "root = Path(sys.argv[1])\n"
        "settings = registry.Settings(root / 'cache', root / 'data', project='p', entity='me')\n"
        "assert registry.pull('run-bert:v0', settings=settings).cached\n"
        "assert not {'wandb', 'torch', 'httpx'} & sys.modules.keys()\n"
    )
    store = Store(tmp_path / "cache", "")
    before_s = store.marks.last_used_s(pulled[0].digest) or 0
    assert os.spawnl(os.P_WAIT, sys.executable, sys.executable, "-c", script, str(tmp_path)) == 0
    assert (store.marks.last_used_s(pulled[0].digest) or 0) > before_s
