"""A server that follows an alias, against the embedded backend and with the real SDK."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from tests.backend_process import BackendProcess, backend_process, run_flow
from tests.models import tiny_bert
from tests.serving.conftest import LABELS, TinyModel
from tests.serving.server_process import ServerProcess, server_environment, server_process

PROJECT = "huggingface"
LOG_VERSIONS = Path(__file__).with_name("flow_log_versions.py")


class Scene:
    """A backend with versions in it, and a server that follows `best`."""

    def __init__(self, backend: BackendProcess, server: ServerProcess, home: Path) -> None:
        self.backend = backend
        self.server = server
        self.home = home

    def promote(self, version: str) -> None:
        """Move `best` with the command line."""
        done = subprocess.run(
            [sys.executable, "-m", "registry", "promote", f"run-bert:{version}", "best"],
            env=server_environment(self.home, self.backend.env(self.home)),
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def live(self) -> str:
        """The version that answers now."""
        return str(self.server.model()["version"]).rpartition(":")[2]

    def children(self, module: str) -> list[psutil.Process]:
        """The server's child processes that run this module."""
        found = psutil.Process(self.server.process.pid).children()
        return [child for child in found if module in command_line(child)]


def command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        # Ended, and not reaped yet.
        return []


def until(condition: Callable[[], object], what: str, *, timeout_s: float = 90.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.fixture(scope="module")
def scene(
    models: tuple[TinyModel, TinyModel], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    home = tmp_path_factory.mktemp("scene")
    unservable = tiny_bert(home / "unservable", labels=LABELS, seed=3)
    (unservable / "tokenizer.json").write_text('{"version": "1.0"}', "utf-8")
    folders = [models[0].snapshot, models[1].snapshot, unservable]
    with backend_process(home / "backend") as backend:
        run_flow(backend, Path(sys.executable), LOG_VERSIONS, home, PROJECT, *map(str, folders))
        arguments = ("bert=run-bert:best", "pinned=run-bert:v0", "--follow-interval", "0.2")
        environment = backend.env(
            home, RUNPORT_CACHE_DIR=str(models[0].cache), RUNPORT_API_TIMEOUT_S="3"
        )
        with server_process(
            home, *arguments, "--no-report", "--threads", "1", environment=environment
        ) as server:
            yield Scene(backend, server, home)


@pytest.fixture(autouse=True)
def _from_the_first_version(scene: Scene) -> None:
    """Each test begins with v0 live."""
    if scene.live() != "v0":
        scene.promote("v0")
        until(lambda: scene.live() == "v0", scene.server.tail())


def test_a_promotion_under_load_fails_no_request(scene: Scene) -> None:
    server = scene.server
    old = server.model()
    answers: list[tuple[float, float, int, str]] = []
    stop = threading.Event()

    def ask() -> None:
        with httpx.Client(timeout=30) as client:
            while not stop.is_set():
                sent = time.monotonic()
                answer = client.post(f"{server.url}/models/bert", json={"inputs": ["a film"] * 4})
                digest = answer.headers.get("x-model-digest", "")
                answers.append((sent, time.monotonic(), answer.status_code, digest))

    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask) for _ in range(3)]
        scene.promote("v1")
        until(lambda: scene.live() == "v1", server.tail())
        swapped = time.monotonic()
        begun = len(answers)
        until(lambda: len(answers) > begun + 50, server.tail())
        stop.set()
        for future in asking:
            future.result()
    new = server.model()
    assert {status for _, _, status, _ in answers} == {200}
    assert {digest for *_, digest in answers} == {old["digest"], new["digest"]}
    late = {digest for sent, _, _, digest in answers if sent > swapped}
    assert late == {new["digest"]}
    until(lambda: not psutil.pid_exists(old["worker_pid"]), "the old worker has not ended")
    assert server.model("pinned")["version"].endswith(":v0")
    assert server.model("pinned")["followed"] is False


def test_a_version_that_cannot_be_served_leaves_the_old_one(scene: Scene) -> None:
    scene.promote("v2")
    until(lambda: scene.server.model()["last_failure"], scene.server.tail())
    facts = scene.server.model()
    assert facts["version"].endswith(":v0")
    assert facts["wanted"].endswith(":v2")
    assert facts["last_failure"]["error"]
    answer = httpx.post(f"{scene.server.url}/models/bert", json={"inputs": "a film"})
    assert answer.status_code == 200
    # Going back calls the failed move off.
    scene.promote("v0")
    until(lambda: scene.server.model()["last_failure"] is None, scene.server.tail())
    assert scene.server.model()["wanted"] is None


def test_serving_and_following_outlive_the_backend(scene: Scene) -> None:
    scene.backend.stop()
    scene.server.wait_for("follow.cannot_look")
    for _ in range(20):
        answer = httpx.post(f"{scene.server.url}/models/bert", json={"inputs": "a film"})
        assert answer.status_code == 200
    assert httpx.get(f"{scene.server.url}/readyz").status_code == 200
    scene.backend.start()
    scene.server.wait_for("follow.looks_again")
    scene.promote("v1")
    until(lambda: scene.live() == "v1", scene.server.tail())


def test_a_server_started_while_the_backend_is_down_serves_what_the_cache_knows(
    scene: Scene, models: tuple[TinyModel, TinyModel]
) -> None:
    scene.backend.stop()
    try:
        environment = scene.backend.env(
            scene.home, RUNPORT_CACHE_DIR=str(models[0].cache), RUNPORT_API_TIMEOUT_S="2"
        )
        arguments = ("bert=run-bert:best", "--follow-interval", "0.2", "--no-report")
        with server_process(scene.home, *arguments, environment=environment) as server:
            facts = server.model()
            assert facts["state"] == "ready"
            assert facts["known_at"]
            answer = httpx.post(f"{server.url}/models/bert", json={"inputs": "a film"})
            assert answer.headers["x-model-version"] == facts["version"]
            server.wait_for("follow.cannot_look")
            scene.backend.start()
            server.wait_for("follow.looks_again")
            scene.promote("v1")
            until(lambda: server.model()["version"].endswith(":v1"), server.tail())
            assert server.model()["known_at"] is None
    finally:
        if scene.backend.process is None:
            scene.backend.start()


def test_a_killed_watcher_is_started_again(scene: Scene) -> None:
    until(lambda: scene.children("serving.follow_child"), scene.server.tail())
    (watcher,) = scene.children("serving.follow_child")
    os.kill(watcher.pid, signal.SIGKILL)
    scene.promote("v1")
    until(lambda: scene.live() == "v1", scene.server.tail())
    (another,) = scene.children("serving.follow_child")
    assert another.pid != watcher.pid


def test_the_server_holds_no_sdk(scene: Scene) -> None:
    maps = Path(f"/proc/{scene.server.process.pid}/maps").read_text("utf-8")
    assert "wandb" not in maps
    assert "libtorch" not in maps
