from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.config import Settings
from registry.errors import GateRefusedError, NotFoundError, UnavailableError, UsageError
from registry.promote import promote, rollback
from tests.registry.file_server import file_server
from tests.registry.memory_hub import MemoryHub


@pytest.fixture
def hub() -> Iterator[MemoryHub]:
    with file_server() as server:
        hub = MemoryHub(server)
        for number, f1 in enumerate((0.7, 0.9, math.nan, 0.8)):
            hub.log("b", {"n": b"%d" % number}, metadata={"eval/f1": f1, "eval/loss": 1 - f1})
        hub.log("b", {"n": b"x"}, metadata={"eval/f1": 0.99, "initial_model": True})
        yield hub


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(cache_dir=tmp_path, data_dir=tmp_path, project="p")


def at(hub: MemoryHub, alias: str) -> str | None:
    version = hub.version("me", "p", "b", alias)
    return version.version if version else None


def test_the_best_by_metric(hub: MemoryHub, settings: Settings) -> None:
    done = promote("b", "best", by="eval/f1", reason="why not", settings=settings, hub=hub)
    assert (done.moved, done.from_version, done.to_version) == (True, None, "v1")
    assert at(hub, "best") == "v1"
    excluded = {c.version: c.excluded for c in done.candidates if c.excluded}
    assert excluded == {"v2": "no finite value", "v4": "a stub without weights"}
    (record,) = hub.records
    assert record.summary == {"outcome": "moved"}
    assert record.config["collection"] == "me/p/b"
    assert record.config["values"] == {"v0": 0.7, "v1": 0.9, "v3": 0.8}
    assert {record.config[key] for key in ("alias", "to", "reason")} == {"best", "v1", "why not"}


def test_again_is_said_and_writes_nothing(hub: MemoryHub, settings: Settings) -> None:
    promote("b", "best", by="eval/f1", settings=settings, hub=hub)
    again = promote("b", "best", by="eval/f1", settings=settings, hub=hub)
    assert not again.moved
    assert len(hub.records) == 1


def test_a_dry_run_changes_nothing(hub: MemoryHub, settings: Settings) -> None:
    done = promote("b", "best", by="eval/loss", dry_run=True, settings=settings, hub=hub)
    assert (done.moved, done.to_version, done.mode) == (False, "v1", "min")
    assert at(hub, "best") is None
    assert not hub.records


def test_the_gate_refuses_a_small_gain(hub: MemoryHub, settings: Settings) -> None:
    promote("b:v3", "best", settings=settings, hub=hub)
    with pytest.raises(GateRefusedError, match=r"0\.1"):
        promote("b", "best", by="eval/f1", min_improvement=0.2, settings=settings, hub=hub)
    assert at(hub, "best") == "v3"
    promote("b", "best", by="eval/f1", min_improvement=0.05, settings=settings, hub=hub)
    assert at(hub, "best") == "v1"


def test_by_name_and_back(hub: MemoryHub, settings: Settings) -> None:
    for version in ("v0", "v1", "v3"):
        promote(f"b:{version}", "production", settings=settings, hub=hub)
    assert rollback("b", "production", settings=settings, hub=hub).to_version == "v1"
    assert rollback("b", "production", settings=settings, hub=hub).to_version == "v0"
    assert at(hub, "production") == "v0"
    assert [r.config["kind"] for r in hub.records] == ["promote"] * 3 + ["rollback"] * 2
    with pytest.raises(NotFoundError) as caught:
        rollback("b", "production", settings=settings, hub=hub)
    assert "registry promote b:vN production" in caught.value.hint
    promote("b:v3", "production", settings=settings, hub=hub)
    assert rollback("b", "production", settings=settings, hub=hub).to_version == "v0"


def test_a_rollback_after_a_move_by_hand_returns_to_the_recorded_version(
    hub: MemoryHub, settings: Settings
) -> None:
    promote("b:v0", "production", settings=settings, hub=hub)
    promote("b:v1", "production", settings=settings, hub=hub)
    other = hub.version("me", "p", "b", "v3")
    assert other is not None
    hub.move_alias(other, "production")
    assert rollback("b", "production", settings=settings, hub=hub).to_version == "v1"


def test_a_race_is_found_and_not_recorded_as_a_move(hub: MemoryHub, settings: Settings) -> None:
    other = hub.version("me", "p", "b", "v0")
    assert other is not None

    def interfere() -> None:
        hub.on_move = None
        hub.move_alias(other, "best")

    hub.on_move = interfere
    with pytest.raises(UnavailableError, match="at the same time"):
        promote("b", "best", by="eval/f1", settings=settings, hub=hub)
    assert hub.records[0].summary["outcome"] == "not moved"
    assert at(hub, "best") == "v0"


@pytest.mark.parametrize(
    ("name", "alias", "options"),
    [
        ("b", "best", {}),
        ("b:v1", "best", {"by": "eval/f1"}),
        ("b:v1", "latest", {}),
        ("b:v1", "v3", {}),
        ("b:v1", "best", {"mode": "max"}),
        ("b", "best", {"by": "eval/f1", "mode": "up"}),
        ("b:v1", "a/b", {}),
    ],
)
def test_requests_that_make_no_sense(
    hub: MemoryHub, settings: Settings, name: str, alias: str, options: dict[str, str]
) -> None:
    with pytest.raises(UsageError) as caught:
        promote(name, alias, settings=settings, hub=hub, **options)  # type: ignore[arg-type]
    assert caught.value.hint
    assert not hub.records


def test_a_metric_that_nobody_has(hub: MemoryHub, settings: Settings) -> None:
    with pytest.raises(NotFoundError) as caught:
        promote("b", "best", by="eval/auc", settings=settings, hub=hub)
    assert "eval/f1" in caught.value.hint
