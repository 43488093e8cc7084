"""The public API over several runs: filters, orders, pages, users, teams, media, big rows."""

from __future__ import annotations

import sys

import numpy as np
import wandb
from steps import refused, run_steps

PROJECT = sys.argv[1]


def write_runs() -> None:
    for number in range(3):
        run = wandb.init(
            project=PROJECT,
            id=f"wide-{number}",
            name=f"run {number}",
            config={"lr": 10.0**-number, "nested": {"deep": number}, "even": number % 2 == 0},
            tags=["all", f"t{number}"],
            job_type="train" if number else "eval",
        )
        for step in range(3):
            run.log({"score": number * 10 + step}, step=step * 100)
        run.finish(exit_code=0 if number else 1)


def ids(**arguments: object) -> list[str]:
    return [run.id[-1] for run in wandb.Api().runs(PROJECT, **arguments)]


def filters_and_orders() -> None:
    assert ids() == ["0", "1", "2"]
    assert ids(order="-created_at", per_page=1) == ["2", "1", "0"]
    assert ids(order="+config.lr.value") == ["2", "1", "0"]
    assert ids(order="-summary_metrics.score") == ["2", "1", "0"]
    assert ids(filters={"config.nested.deep": {"$gte": 1}}) == ["1", "2"]
    assert ids(filters={"config.even": True}) == ["0", "2"]
    assert ids(filters={"jobType": "train"}) == ["1", "2"]
    assert ids(filters={"state": "failed"}) == ["0"]
    assert ids(filters={"tags": {"$in": ["t0", "t2"]}}) == ["0", "2"]
    assert ids(filters={"$or": [{"display_name": "run 0"}, {"name": "wide-2"}]}) == ["0", "2"]
    assert ids(filters={"summary_metrics.score": {"$lt": 10}}) == ["0"]
    assert ids(filters={"created_at": {"$gt": "2020-01-01T00:00:00"}}) == ["0", "1", "2"]
    with refused(Exception):
        ids(filters={"$unknown": 1})
    runs = wandb.Api().runs(PROJECT, per_page=2)
    assert len(runs) == 3
    assert runs[2].id == "wide-2"


def sparse_steps() -> None:
    run = wandb.Api().run(f"{PROJECT}/wide-1")
    assert run.lastHistoryStep == 200
    assert [row["_step"] for row in run.scan_history(page_size=50)] == [0, 100, 200]
    assert [row["score"] for row in run.scan_history(keys=["score"], page_size=50)] == [10, 11, 12]
    assert list(run.scan_history(min_step=101, max_step=200)) == []


def media() -> None:
    run = wandb.init(project=PROJECT, id="media")
    run.log({"wide": {f"k{n}": n for n in range(300)}, "array": np.arange(3)})
    run.log({"histogram": wandb.Histogram(np_histogram=np.histogram([1, 2, 3]))})
    run.log({"html": wandb.Html("<b>bold</b>"), "long": "x" * 100_000})
    run.finish()
    read = wandb.Api().run(f"{PROJECT}/media")
    rows = list(read.scan_history())
    assert rows[0]["wide"]["k299"] == 299 or rows[0]["wide.k299"] == 299
    assert rows[1]["histogram"]["_type"] == "histogram"
    assert len(rows[2]["long"]) == 100_000
    assert any(file.name.startswith("media/html/") for file in read.files())
    assert [file.name for file in read.files(pattern="media/%")]


def users_and_teams() -> None:
    api = wandb.Api()
    viewer = api.viewer
    assert viewer.username in viewer.teams
    assert viewer.email
    found = api.user(viewer.username)
    assert found is not None
    assert found.username == viewer.username
    assert api.user("nobody-of-this-name") is None
    team = api.team(viewer.username)
    assert [member.username for member in team.members] == [viewer.username]
    project = api.project(PROJECT, viewer.username)
    assert project.name == PROJECT
    assert project.url.endswith(f"/{PROJECT}/workspace")


def what_is_not_kept() -> None:
    api = wandb.Api()
    entity = api.default_entity
    assert list(api.reports(f"{entity}/{PROJECT}")) == []
    assert list(api.automations(entity)) == []
    assert list(api.automations()) == []
    assert list(api.integrations(entity)) == []
    assert api.list_jobs(entity, PROJECT) == []
    with refused(wandb.errors.CommError, ValueError):
        api.sweep(f"{entity}/{PROJECT}/absent").id  # noqa: B018 - loading is what is refused
    with refused(wandb.errors.CommError):
        wandb.sweep({"method": "random", "parameters": {"a": {"values": [1]}}}, project=PROJECT)


def rewound_and_automatic() -> None:
    run = wandb.init(project=PROJECT, resume_from="wide-2?_step=100")
    run.finish()
    read = wandb.Api().run(f"{PROJECT}/wide-2")
    assert [row["score"] for row in read.scan_history(keys=["score"])] == [20, 21]
    run = wandb.init(project=PROJECT, resume="auto")
    run.finish()
    assert wandb.Api().run(f"{PROJECT}/{run.id}").state == "finished"


if __name__ == "__main__":
    run_steps(
        [
            write_runs,
            filters_and_orders,
            sparse_steps,
            media,
            users_and_teams,
            what_is_not_kept,
            rewound_and_automatic,
        ]
    )
