"""`kill -9` at any moment: what was acknowledged is there, and everything agrees."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.backend_process import BackendProcess
from tests.faults.backend.inspection import audit
from tests.faults.backend.workload import Workload


def _kills(data_dir: Path, rounds: int, seed: int) -> None:
    chance = random.Random(seed)
    backend, load = BackendProcess(data_dir), Workload(seed)
    backend.start()
    try:
        load.prepare(backend)
        for _ in range(rounds):
            target = load.history.acknowledged + chance.randrange(12)
            with load.running(backend):
                load.wait_for(target)
                # Within the operation that comes next, not only between two.
                time.sleep(chance.random() * 0.01)
                backend.kill()
            audit(data_dir, settled=False)
            backend.start()
            audit(data_dir)
            load.check(backend)
    finally:
        if backend.process is not None:
            backend.stop()
    audit(data_dir)
    assert load.history.rows
    assert load.history.files
    assert load.history.artifacts


def test_kill_at_random_moments(tmp_path: Path) -> None:
    _kills(tmp_path / "data", rounds=16, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(2, 7))
def test_kill_at_many_random_moments(tmp_path: Path, seed: int) -> None:
    _kills(tmp_path / "data", rounds=60, seed=seed)
