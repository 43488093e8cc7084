"""The real reporter process, the real SDK and the embedded backend."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from serving.telemetry import ReporterCommand, RequestRecord, ServedVersion, Telemetry, lane
from tests.backend_process import REPOSITORY, BackendProcess, backend_process, run_flow

WINDOW_S = 0.25
QUICK = ("--poll-s", "0.1", "--transmit-s", "1", "--backoff-s", "1", "--stall-s", "20")

LOG_A_MODEL = """
import pathlib, sys, wandb
folder = pathlib.Path("model")
folder.mkdir(exist_ok=True)
with wandb.init(project=sys.argv[1], job_type="train") as run:
    for number in range(2):
        (folder / "config.json").write_text('{"number": %d}' % number)
        artifact = wandb.Artifact("run-bert", "model")
        artifact.add_dir(str(folder))
        run.log_artifact(artifact).wait()
"""

READ_BACK = """
import json, sys, wandb
runs = wandb.Api().runs(f"local/{sys.argv[1]}", filters={"jobType": "inference"})
print(json.dumps([{
    "name": run.name, "state": run.state, "job_type": run.job_type, "tags": list(run.tags),
    "config": dict(run.config), "summary": dict(run.summary.items()),
    "rows": list(run.scan_history()), "used": [a.name for a in run.used_artifacts()],
} for run in runs], default=dict))
"""

SERVER = """
import asyncio, os, signal, sys
from pathlib import Path
from serving.telemetry import *
async def main():
    telemetry = Telemetry(Path(sys.argv[1]), window_s=0.25,
        reporter=ReporterCommand((sys.executable, *sys.argv[3:]), dict(os.environ)))
    await telemetry.start()
    telemetry.version_started(ServedVersion("bert", sys.argv[2], "ab" * 32))
    telemetry.record(RequestRecord("bert", sys.argv[2], "ab" * 32, True, 200, 1))
    await asyncio.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


@dataclass
class Site:
    """A backend with a project that holds two versions of `run-bert`."""

    backend: BackendProcess
    folder: Path
    project: str

    @property
    def spool(self) -> Path:
        return self.folder / "spool"

    @property
    def lane(self) -> Path:
        return self.spool / "lane-0"

    def pinned(self, version: int) -> str:
        return f"local/{self.project}/run-bert:v{version}"

    def environment(self) -> dict[str, str]:
        return self.backend.env(self.folder / "reporter")

    def reporter(self) -> ReporterCommand:
        command = ReporterCommand.for_this_python(self.environment())
        return ReporterCommand((*command.argv, *QUICK), command.environment)

    def telemetry(self, drain_timeout_s: float = 30) -> Telemetry:
        return Telemetry(
            self.spool,
            window_s=WINDOW_S,
            reporter=self.reporter(),
            drain_timeout_s=drain_timeout_s,
        )

    def run_script(self, script: str, *arguments: str) -> str:
        path = self.folder / "script.py"
        path.write_text(script)
        home = self.folder / "client"
        home.mkdir(exist_ok=True)
        return run_flow(self.backend, Path(sys.executable), path, home, *arguments)

    def runs(self) -> dict[str, dict[str, Any]]:
        """What `wandb.Api()` says, by run name."""
        found = json.loads(self.run_script(READ_BACK, self.project).splitlines()[-1])
        return {run["name"]: run for run in found}

    def said(self) -> str:
        """The reporter's log, for a failing test."""
        log = self.lane / "reporter.log"
        return log.read_text() if log.exists() else ""


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackendProcess]:
    with backend_process(tmp_path_factory.mktemp("backend")) as process:
        yield process


@pytest.fixture
def site(backend: BackendProcess, tmp_path: Path) -> Site:
    project = f"telemetry-{secrets.token_hex(4)}"
    site = Site(backend, tmp_path, project)
    site.run_script(LOG_A_MODEL, project)
    return site


def record(pinned_name: str, *, deployment: str = "bert") -> RequestRecord:
    stages = {"total": 12.0, "queue": 1.0, "inference": 9.0}
    return RequestRecord(
        deployment, pinned_name, "ab" * 32, True, 200, 2, (2,), stages, ("pos", "neg")
    )


async def until(condition: Callable[[], object], site: Site, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, site.said()
        await asyncio.sleep(0.05)


async def delivered(site: Site) -> None:
    """Wait until W&B has everything that was spooled."""

    def is_delivered() -> bool:
        return 0 < newest(site.lane) <= lane.read_acknowledged(site.lane)

    await until(is_delivered, site)


def newest(directory: Path) -> int:
    from serving.telemetry import frames

    if not directory.exists():
        return 0
    entries = [
        entry
        for _, path in lane.segments(directory)
        for entry in frames.decode(path.read_bytes())[0]
    ]
    return entries[-1].sequence if entries else 0


def test_each_version_gets_its_run_with_lineage_and_metrics(site: Site) -> None:
    async def scenario() -> None:
        telemetry = site.telemetry()
        await telemetry.start()
        for version in (0, 1):
            telemetry.version_started(
                ServedVersion(
                    "bert", site.pinned(version), "ab" * 32, "onnx", "text-classification"
                )
            )
            for _ in range(5):
                telemetry.record(record(site.pinned(version)))
        telemetry.version_stopped("bert", site.pinned(0))
        await until(lambda: newest(site.lane) >= 5, site)
        await delivered(site)
        states = {name: run["state"] for name, run in site.runs().items()}
        assert states == {"serve-bert-run-bert-v0": "finished", "serve-bert-run-bert-v1": "running"}
        await telemetry.stop()

    asyncio.run(scenario())
    runs = site.runs()
    assert {run["state"] for run in runs.values()} == {"finished"}
    run = runs["serve-bert-run-bert-v1"]
    assert run["used"] == ["run-bert:v1"]
    assert run["job_type"] == "inference"
    assert set(run["tags"]) == {"runport", "serving", "bert"}
    assert run["config"]["engine"] == "onnx"
    assert run["config"]["version"] == site.pinned(1)
    assert site.backend.api_key not in json.dumps(run)
    row = run["rows"][0]
    assert row["requests"] == 5
    assert row["items"] == 10
    assert row["labels/pos"] == 5
    assert row["batch/size_mean"] == 2
    assert row["latency/total/p95_ms"] == pytest.approx(12, rel=0.05)
    assert run["summary"]["total/requests"] == 5


def test_windows_arrive_once_over_kills_of_the_reporter_and_the_backend(tmp_path: Path) -> None:
    recorded = 0

    async def scenario(site: Site) -> None:
        nonlocal recorded
        telemetry = site.telemetry()
        await telemetry.start()

        async def serve(windows: int) -> None:
            nonlocal recorded
            goal = newest(site.lane) + windows
            while newest(site.lane) < goal:
                telemetry.record(record(site.pinned(0)))
                recorded += 1
                await asyncio.sleep(WINDOW_S / 5)

        await serve(3)
        await delivered(site)
        for _ in range(2):
            await serve(2)
            process_id = telemetry.reporter_process_id()
            if process_id:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process_id, signal.SIGKILL)
        await serve(2)
        await delivered(site)
        await serve(1)
        site.backend.kill()
        await serve(4)
        site.backend.start()
        await serve(2)
        await delivered(site)
        await telemetry.stop()

    with backend_process(tmp_path / "data") as own:
        site = Site(own, tmp_path, "telemetry")
        site.run_script(LOG_A_MODEL, site.project)
        asyncio.run(scenario(site))
        (run,) = site.runs().values()
    steps = [row["_step"] for row in run["rows"]]
    assert steps == list(range(1, len(steps) + 1)), site.said()
    assert sum(row["requests"] for row in run["rows"]) == recorded
    assert run["summary"]["total/requests"] == recorded
    assert run["state"] == "finished"


def test_with_wandb_down_stopping_is_bounded_and_the_next_server_delivers(tmp_path: Path) -> None:
    async def serve(site: Site, drain_timeout_s: float) -> None:
        telemetry = site.telemetry(drain_timeout_s)
        await telemetry.start()
        telemetry.version_started(ServedVersion("bert", site.pinned(0), "ab" * 32))
        telemetry.record(record(site.pinned(0)))
        await telemetry.stop()

    with backend_process(tmp_path / "data") as own:
        site = Site(own, tmp_path, "telemetry")
        site.run_script(LOG_A_MODEL, site.project)
        own.stop()
        asyncio.run(serve(site, 0.5))
        assert lane.read_acknowledged(site.lane) == 0
        own.start()
        asyncio.run(serve(site, 30))
        found = json.loads(site.run_script(READ_BACK, site.project).splitlines()[-1])
    assert len(found) == 2
    assert [len(run["rows"]) for run in found] == [1, 1]
    assert {run["state"] for run in found} == {"finished"}


def test_a_killed_server_leaves_a_failed_run_with_all_its_windows(site: Site) -> None:
    arguments = [str(site.spool), site.pinned(0), "-m", "serving.telemetry.reporter", *QUICK]
    done = subprocess.run(
        [sys.executable, "-c", SERVER, *arguments],
        env=site.environment(),
        cwd=REPOSITORY,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    asyncio.run(until(lambda: not reporters_of(site), site))
    (run,) = site.runs().values()
    assert run["state"] == "failed", site.said()
    assert [row["requests"] for row in run["rows"]] == [1]


def reporters_of(site: Site) -> list[int]:
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if str(site.lane) in (process.info["cmdline"] or [])
    ]


def test_a_reporter_told_to_leave_finishes_its_runs_and_the_next_resumes_them(site: Site) -> None:
    async def scenario() -> None:
        telemetry = site.telemetry()
        await telemetry.start()
        telemetry.record(record(site.pinned(0)))
        await until(lambda: newest(site.lane), site)
        await delivered(site)
        process_id = telemetry.reporter_process_id()
        assert process_id
        os.kill(process_id, signal.SIGTERM)
        await until(lambda: telemetry.reporter_process_id() not in (None, process_id), site)
        telemetry.record(record(site.pinned(0)))
        await telemetry.stop()

    asyncio.run(scenario())
    (run,) = site.runs().values()
    assert [row["_step"] for row in run["rows"]] == [1, 2]
    assert run["state"] == "finished"


def test_the_command_line_names_a_folder_that_is_not_there(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "serving.telemetry.reporter", "--spool", str(tmp_path / "none")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no folder" in done.stderr


def test_only_the_reporter_imports_wandb() -> None:
    script = "import sys, serving.telemetry; assert 'wandb' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
