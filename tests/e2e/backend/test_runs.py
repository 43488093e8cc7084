"""Runs with the unmodified SDK: the oldest supported one, one between, and the newest."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.backend_process import BackendProcess, backend_process, run_flow
from tests.e2e.backend.interpreters import NEWEST, interpreters
from tests.e2e.backend.reviewed_unknown import unreviewed

FLOWS = Path(__file__).parent / "flows"
STATE = """query($project: String, $run: String!) {
    project(name: $project) { run(name: $run) { state } } }"""


@pytest.mark.parametrize("python", interpreters())
@pytest.mark.parametrize("flow", ["runs_lifecycle", "runs_special", "runs_wide"])
def test_flow(shared_backend: BackendProcess, python: Path, flow: str, tmp_path: Path) -> None:
    project = f"{flow}-{python.parents[1].name.strip('.')}"
    run_flow(shared_backend, python, FLOWS / f"{flow}.py", tmp_path, project)
    assert unreviewed(shared_backend.unknown()) == []


def test_a_run_is_stopped(shared_backend: BackendProcess, tmp_path: Path) -> None:
    # The newest SDK alone: it asks every 15 seconds, the oldest needs 30.
    run_flow(shared_backend, NEWEST, FLOWS / "runs_stopped.py", tmp_path, "runs-stopped")


def test_a_silent_run_has_crashed_until_it_speaks_again(tmp_path: Path) -> None:
    with backend_process(tmp_path / "data", "--heartbeat-timeout-s", "1.5") as backend:
        backend.graphql(
            """mutation { upsertBucket(input: {modelName: "p", name: "silent"}) {
               bucket { id } } }"""
        )
        assert state(backend) == "running"
        deadline = time.monotonic() + 60
        while state(backend) != "crashed":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with backend.client() as client:
            answer = client.post("/files/local/p/silent/file_stream", json={"files": {}})
        assert answer.json()["stopped"] is False
        assert state(backend) == "running"


def state(backend: BackendProcess) -> object:
    data: dict[str, dict[str, dict[str, object]]] = backend.graphql(
        STATE, project="p", run="silent"
    )
    return data["project"]["run"]["state"]
