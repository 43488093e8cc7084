"""What tuning measured: kept, found again, and only used where it holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry import TuningRow, UsageError, find_tuning, keep_tuning, machine_facts, tuned_export
from registry.store import Store
from registry.store.prune import Budget
from registry.tuning import list_tunings
from tests.serving.tune.rows import row, tuning

DIGEST = "ab" * 32


def test_what_was_kept_is_found(tmp_path: Path) -> None:
    assert find_tuning(tmp_path, DIGEST, "text-classification") is None
    kept = tuning(DIGEST, (row(), row("openvino/bf16", 2.5)), chosen=1)
    path = keep_tuning(tmp_path, kept)
    found = find_tuning(tmp_path, DIGEST, "text-classification")
    assert found is not None
    assert (found.path, found.tuning, found.stale) == (path, kept, "")
    assert found.tuning.winner.name == "openvino/bf16"
    assert "2.50 times" in kept.summary()
    assert find_tuning(tmp_path, DIGEST, "token-classification") is None
    assert find_tuning(tmp_path, "cd" * 32, "text-classification") is None
    with pytest.raises(UsageError):
        find_tuning(tmp_path, "short", "text-classification")


def test_a_second_measurement_replaces_the_first(tmp_path: Path) -> None:
    keep_tuning(tmp_path, tuning(DIGEST, (row(),)))
    keep_tuning(tmp_path, tuning(DIGEST, (row(speed=2.0),), budget=0.1))
    assert [one.tuning.budget for one in list_tunings(tmp_path, DIGEST)] == [0.1]


def test_another_machine_or_other_tools_make_it_stale(tmp_path: Path) -> None:
    foreign = {**machine_facts(), "cores": "96"}
    keep_tuning(tmp_path, tuning(DIGEST, (row(),), machine=foreign))
    found = find_tuning(tmp_path, DIGEST, "text-classification")
    assert found is not None
    assert "another machine" in found.stale
    assert "96 cores" in found.stale
    old = {**tuning(DIGEST, (row(),)).tools, "onnxruntime": "1.0"}
    keep_tuning(tmp_path, tuning(DIGEST, (row(),), tools=old, created_at_s=2e9))
    found = find_tuning(tmp_path, DIGEST, "text-classification")
    assert found is not None
    assert "onnxruntime 1.0 is now" in found.stale
    # One that holds is preferred to newer ones that do not.
    keep_tuning(tmp_path, tuning(DIGEST, (row(),)))
    found = find_tuning(tmp_path, DIGEST, "text-classification")
    assert found is not None
    assert found.stale == ""


def test_torch_matters_to_a_torch_winner_alone(tmp_path: Path) -> None:
    old = {**tuning(DIGEST, (row(),)).tools, "torch": "1.0"}
    keep_tuning(tmp_path, tuning(DIGEST, (row(),), tools=old))
    keep_tuning(tmp_path, tuning("cd" * 32, (row("torch/fp32"),), tools=old))
    stale = [
        found.stale for digest in (DIGEST, "cd" * 32) for found in list_tunings(tmp_path, digest)
    ]
    assert stale[0] == ""
    assert "torch 1.0" in stale[1]


def test_broken_files_are_passed_over(tmp_path: Path) -> None:
    path = keep_tuning(tmp_path, tuning(DIGEST, (row(),)))
    whole = path.read_bytes()
    bad_choice = whole.replace(b'"chosen": 0', b'"chosen": 7')
    for content in (
        b"",
        b"{",
        whole[:-40],
        bad_choice,
        whole.replace(b'"format": 1', b'"format": 9'),
    ):
        path.write_bytes(content)
        assert list_tunings(tmp_path, DIGEST) == []


def test_an_export_that_is_gone_is_not_found(tmp_path: Path) -> None:
    assert tuned_export(tmp_path, row(export_key=f"{DIGEST[:32]}-0123456789abcdef")) is None
    assert tuned_export(tmp_path, TuningRow(engine="torch", precision="fp32")) is None


def test_it_goes_with_its_version(tmp_path: Path) -> None:
    path = keep_tuning(tmp_path, tuning(DIGEST, (row(),)))
    store = Store(tmp_path, "")
    (entry,) = store.census().entries
    assert entry.exports == (path,)
    assert entry.exports_bytes == path.stat().st_size
    store.prune(Budget(max_bytes=0))
    assert not path.exists()
    assert find_tuning(tmp_path, DIGEST, "text-classification") is None
