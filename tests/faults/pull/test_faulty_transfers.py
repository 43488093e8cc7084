"""No fault of the wire, the disk, the locks or our own process makes wrong bytes visible."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backend_process import BackendProcess, backend_process
from tests.faults.pull.log_case import log_case, run_trials
from tests.faults.pull.trials import ANSWERS, PROCESSES


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackendProcess]:
    with backend_process(tmp_path_factory.mktemp("hurt") / "data") as backend:
        yield backend


def check(backend: BackendProcess, folder: Path, count: int) -> None:
    trials = run_trials(backend, log_case(backend), "pull", count, folder)
    assert len(trials) == count
    assert {trial["kind"] for trial in trials} == {*ANSWERS, *PROCESSES}
    bad = [trial for trial in trials if trial["wrong_files"] or trial["visible_wrong"]]
    assert not bad, "wrong bytes were taken for right"
    assert {trial["again"] for trial in trials} == {"right"}, "healed, and yet not pulled"
    first = Counter((trial["kind"], trial["first"]) for trial in trials)
    assert first["flip", "right"], "a flipped bit costs one more fetch, not the pull"
    assert not first["kill", "right"]
    assert first["disk-full", "refused"]


def test_faulty_transfers_commit_no_wrong_byte(backend: BackendProcess, tmp_path: Path) -> None:
    check(backend, tmp_path, 60)


@pytest.mark.soak
def test_a_thousand_faulty_transfers_commit_no_wrong_byte(
    backend: BackendProcess, tmp_path: Path
) -> None:
    check(backend, tmp_path, 1000)


def test_the_harness_finds_a_client_that_checks_nothing(
    backend: BackendProcess, tmp_path: Path
) -> None:
    """The SDK's own download is such a client: were it not found out, nothing would be."""
    trials = run_trials(backend, log_case(backend), "sdk", 10, tmp_path)
    assert any(trial["first"] == "wrong" for trial in trials)
