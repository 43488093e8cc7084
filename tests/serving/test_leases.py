"""What a server serves stays in the cache while the server lives, and no longer."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import httpx

from registry.store import Store
from registry.store.prune import Budget, Choice
from tests.serving.conftest import TinyModel
from tests.serving.server_process import server_process


def prune(home: Path) -> Choice:
    return Store(home / "cache", "").prune(Budget(max_bytes=0, leftover_age_s=0))


def test_a_running_server_keeps_its_version_and_a_killed_one_does_not(
    models: tuple[TinyModel, TinyModel], tmp_path: Path
) -> None:
    arguments = (f"bert={models[0].export}", "--no-report", "--threads", "1")
    with server_process(tmp_path, *arguments) as server:
        assert [kept.reason for kept in prune(tmp_path).kept] == ["in use"]
        # Its worker is started again from what is in the cache.
        os.kill(server.model()["worker_pid"], signal.SIGKILL)
        server.wait_for("replica.restarted")
        answer = httpx.post(f"{server.url}/models/bert", json={"inputs": "good"}, timeout=30)
        assert answer.status_code == 200
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    assert [removal.kind for removal in prune(tmp_path).removals] == ["lease", "version"]


def test_a_server_that_is_stopped_leaves_no_lease(
    models: tuple[TinyModel, TinyModel], tmp_path: Path
) -> None:
    arguments = (f"bert={models[0].export}", "--no-report", "--threads", "1")
    with server_process(tmp_path, *arguments) as server:
        assert server.stop() == 0
    assert not any((tmp_path / "cache" / "leases").iterdir())
