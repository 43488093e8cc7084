"""Less common lives of runs: many clients, stop, overwrite, offline sync, login, pending."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import wandb
from steps import refused, run_steps

PROJECT = sys.argv[1]
WANDB = [sys.executable, "-m", "wandb"]


class CommandFailedError(Exception):
    """A command of the SDK ended with another status than 0."""


def command(*arguments: str, **environment: str) -> None:
    done = subprocess.run(
        [*WANDB, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
        env={**os.environ, **environment},
    )
    output = done.stdout + done.stderr
    if done.returncode:
        raise CommandFailedError(arguments[0], done.returncode, output)


def made_names_and_project() -> None:
    run = wandb.init(project=PROJECT)
    assert run.name
    assert run.name.rpartition("-")[2].isdigit(), run.name
    assert run.entity == wandb.Api().default_entity
    assert run.url == f"{os.environ['WANDB_BASE_URL']}/{run.entity}/{PROJECT}/runs/{run.id}"
    run.finish()
    other = wandb.init(entity="a-team", project=PROJECT)
    other.log({"x": 1})
    other.finish()
    assert [r.id for r in wandb.Api().runs(f"a-team/{PROJECT}")] == [other.id]
    assert "a-team" in wandb.Api().viewer.teams


def overwritten() -> None:
    for rows, value in ((5, 1.0), (2, 2.0)):
        run = wandb.init(project=PROJECT, id="twice")
        for _ in range(rows):
            run.log({"value": value})
        run.finish()
    read = wandb.Api().run(f"{PROJECT}/twice")
    assert [row["value"] for row in read.scan_history()] == [2.0, 2.0]


def auto_resume_and_groups() -> None:
    for _ in range(2):
        run = wandb.init(project=PROJECT, id="allowed", resume="allow", group="g2")
        run.log({"value": 1})
        run.finish()
    read = wandb.Api().run(f"{PROJECT}/allowed")
    assert len(list(read.scan_history())) == 2
    found = wandb.Api().runs(PROJECT, filters={"group": "g2"}, order="-created_at")
    assert [r.id for r in found] == ["allowed"]


def offline_sync() -> None:
    run = wandb.init(project=PROJECT, mode="offline", config={"offline": True})
    run.log({"value": 7})
    folder = Path(run.dir)
    (folder / "kept.txt").write_text("kept")
    run.save(str(folder / "kept.txt"), base_path=str(folder))
    run.finish()
    command("sync", str(folder.parent))
    read = wandb.Api().run(f"{PROJECT}/{run.id}")
    assert read.config["offline"] is True
    assert [row["value"] for row in read.scan_history(keys=["value"])] == [7]
    assert "kept.txt" in {file.name for file in read.files()}
    assert read.state == "finished", read.state


def login() -> None:
    key = os.environ["WANDB_API_KEY"]
    command("login", "--verify", "--relogin", "--host", os.environ["WANDB_BASE_URL"], key)
    assert wandb.login(verify=True)
    wrong = "x" * 40
    with refused(CommandFailedError):
        command("login", "--verify", "--relogin", wrong, WANDB_API_KEY=wrong)


def pending() -> None:
    api = wandb.Api()
    made = api.create_run(project=PROJECT, run_id="made-by-api")
    assert made.id == "made-by-api"
    assert wandb.Api().run(f"{PROJECT}/made-by-api").state == "running"
    if hasattr(made, "update_state"):
        assert made.update_state("failed")
        assert wandb.Api().run(f"{PROJECT}/made-by-api").state == "failed"


def many_at_once() -> None:
    failures: list[BaseException] = []

    def one(number: int) -> None:
        try:
            run = wandb.init(project=PROJECT, id=f"many-{number}", reinit="create_new")
            for step in range(50):
                run.log({"step": step, "number": number})
            run.finish()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    found = wandb.Api().runs(
        PROJECT, filters={"$and": [{"name": {"$in": [f"many-{n}" for n in range(9)]}}]}, per_page=2
    )
    assert len(found) == 4
    for run in found:
        for page_size in (7, 1000):
            scan = run.scan_history(keys=["step"], page_size=page_size)
            assert [row["step"] for row in scan] == list(range(50))
        assert [row["step"] for row in run.scan_history(page_size=7)] == list(range(50))


STEPS = [
    made_names_and_project,
    overwritten,
    auto_resume_and_groups,
    offline_sync,
    login,
    pending,
    many_at_once,
]

if __name__ == "__main__":
    run_steps(STEPS)
