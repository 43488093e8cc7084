"""How `registry serve` reads which base model belongs to which adapter."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.cli.serve import command, core_limits, parse_bases
from registry.cli.units import parse_size
from registry.errors import InvalidReferenceError, UsageError
from serving.config import CoreLimits, ServeConfig


def test_a_base_is_for_all_or_for_the_deployment_that_is_named() -> None:
    names = {"a", "b"}
    assert parse_bases((), names) == (None, {})
    assert parse_bases(("run-bert:v0",), names) == ("run-bert:v0", {})
    assert parse_bases(("run-x:v0", "a=run-bert:v0"), names) == ("run-x:v0", {"a": "run-bert:v0"})
    here = str(Path("model").absolute())
    assert parse_bases(("a=./model", "b=./model"), names) == (None, {"a": here, "b": here})


def test_what_is_unclear_is_refused() -> None:
    for texts in (("a=run-x:v0", "a=run-y:v0"), ("run-x:v0", "run-y:v0"), ("c=run-x:v0",)):
        with pytest.raises(UsageError):
            parse_bases(texts, {"a"})
    with pytest.raises(InvalidReferenceError):
        parse_bases(("a=a:b:c",), {"a"})


def test_memory_for_what_grows_is_checked() -> None:
    assert core_limits(3, 7, 2**22) == CoreLimits(slots=3, max_queue=7, cache_bytes=2**22)
    default = next(one for one in command.params if one.name == "cache_bytes").default
    assert parse_size(str(default)) == CoreLimits().cache_bytes
    with pytest.raises(UsageError, match="1 MiB"):
        core_limits(None, 7, 8)


def test_each_deployment_is_prepared_with_its_own(tmp_path: Path) -> None:
    config = ServeConfig(
        deployments=(("a", "run-a"), ("b", "run-b")), cache_dir=tmp_path, data_dir=tmp_path,
        bases={"a": "run-bert:v0"}, environment={"RUNPORT_BASE": "run-x:v0"},
    )  # fmt: skip
    assert config.preparing_environment("a")["RUNPORT_BASE"] == "run-bert:v0"
    assert config.preparing_environment("b")["RUNPORT_BASE"] == "run-x:v0"
