"""A run from init to deletion, and everything the public API reads back about it."""

from __future__ import annotations

import sys
from pathlib import Path

import wandb
from steps import eventually, refused

PROJECT = sys.argv[1]
CONFIG = {"lr": 0.1, "layers": [1, 2], "optimizer": {"name": "adam", "beta": 0.9}, "none": None}


def first_run() -> str:
    run = wandb.init(
        project=PROJECT,
        name="first",
        config=CONFIG,
        tags=["a", "b"],
        group="g",
        job_type="train",
        notes="some notes",
    )
    run.define_metric("epoch")
    run.define_metric("eval/*", step_metric="epoch", summary="max")
    for step in range(20):
        run.log({"loss": 1.0 / (step + 1), "epoch": step // 5, "nested": {"value": step}})
    run.log({"eval/f1": 0.5, "epoch": 4, "text": "héllo"})
    run.log({"eval/f1": 0.4, "epoch": 5, "odd": float("nan"), "huge": float("inf")})
    run.log({"histogram": wandb.Histogram([1, 2, 3, 3])})
    sys.stdout.write("line one on the console\n")
    sys.stderr.write("line two: über\n")
    folder = Path(run.dir)
    (folder / "notes.txt").write_text("saved by the run")
    run.save(str(folder / "notes.txt"), base_path=str(folder))
    (folder / "sub").mkdir()
    (folder / "sub" / "empty.bin").write_bytes(b"")
    run.save(str(folder / "sub" / "empty.bin"), base_path=str(folder))
    run.config.update({"added": "later"})
    run.summary["best"] = 0.99
    run.tags = (*run.tags, "c")
    run.alert("attention", "the loss is fine", level=wandb.AlertLevel.WARN)
    run.finish()
    return run.id


def check_run(run_id: str) -> None:
    api = wandb.Api()
    run = api.run(f"{PROJECT}/{run_id}")
    assert run.state == "finished", run.state
    assert run.name == "first"
    assert run.config == {**CONFIG, "added": "later"}, run.config
    assert sorted(run.tags) == ["a", "b", "c"], run.tags
    assert (run.group, run.job_type, run.notes) == ("g", "train", "some notes")
    assert run.summary["best"] == 0.99
    assert run.summary["loss"] == 1 / 20
    assert run.summary["eval/f1"]["max"] == 0.5, run.summary["eval/f1"]
    assert run.summary["nested"]["value"] == 19
    assert run.lastHistoryStep == 22, run.lastHistoryStep
    assert run.user.username == run.entity
    assert "Z" in run.created_at
    check_history(run)
    check_files(run)


def check_history(run) -> None:
    rows = run.history(pandas=False)
    assert len(rows) == 23, len(rows)
    losses = [row["loss"] for row in run.scan_history(keys=["loss"])]
    assert losses == [1.0 / (step + 1) for step in range(20)], losses
    assert len(list(run.scan_history())) == 23
    part = list(run.scan_history(min_step=5, max_step=10, page_size=2))
    assert [row["_step"] for row in part] == [5, 6, 7, 8, 9], part
    scores = run.history(keys=["eval/f1"], pandas=False)
    assert [row["eval/f1"] for row in scores] == [0.5, 0.4]
    assert len(run.history(samples=7, pandas=False)) == 7
    assert len(run.history(keys=["loss"], samples=5, pandas=False)) == 5
    odd = list(run.scan_history(keys=["odd", "huge"]))
    assert len(odd) == 1, odd
    run.history(stream="system", pandas=False)


def check_files(run) -> None:
    names = {file.name for file in run.files()}
    assert {"notes.txt", "sub/empty.bin", "config.yaml", "wandb-summary.json"} <= names, names
    assert "wandb-metadata.json" in names, names
    assert run.metadata["os"]
    saved = run.file("notes.txt").download(root="downloaded", replace=True)
    assert saved.read() == "saved by the run"
    saved.close()
    assert [file.name for file in run.files(names=["notes.txt"])] == ["notes.txt"]
    assert len(run.files(per_page=1)) == len(names)
    output = run.file("output.log").download(root="downloaded", replace=True)
    text = output.read()
    output.close()
    assert "line one on the console" in text, text
    if hasattr(run, "console_logs"):
        lines = [line.content for line in run.console_logs()]
        assert any("line one on the console" in line for line in lines), lines
        assert any("über" in line.content for line in run.console_logs(last=5))
    Path("uploaded.txt").write_text("by the api")
    run.upload_file("uploaded.txt")
    assert eventually("the upload", lambda: run.file("uploaded.txt").size) == 10
    run.file("uploaded.txt").delete()
    assert "uploaded.txt" not in {file.name for file in run.files()}


def change_run(run_id: str) -> None:
    api = wandb.Api()
    run = api.run(f"{PROJECT}/{run_id}")
    run.summary.update({"judged": "good"})
    run.config["reviewed"] = True
    run.tags.append("d")
    run.notes = "other notes"
    run.name = "renamed"
    run.update()
    run = wandb.Api().run(f"{PROJECT}/{run_id}")
    assert run.summary["judged"] == "good"
    assert run.summary["best"] == 0.99
    assert run.config["reviewed"] is True
    assert run.config["lr"] == 0.1
    assert "d" in run.tags
    assert (run.notes, run.name) == ("other notes", "renamed")


def resume(run_id: str) -> None:
    run = wandb.init(project=PROJECT, id=run_id, resume="must")
    assert run.resumed
    assert run.starting_step == 23, run.starting_step
    assert run.config["lr"] == 0.1
    run.log({"loss": 0.001})
    run.finish(exit_code=3)
    read = wandb.Api().run(f"{PROJECT}/{run_id}")
    assert read.state == "failed", read.state
    assert len(list(read.scan_history(keys=["loss"]))) == 21
    assert read.summary["best"] == 0.99
    for mode, wrong_id in (("never", run_id), ("must", "no-such-run")):
        with refused(wandb.errors.UsageError, wandb.errors.CommError):
            wandb.init(project=PROJECT, id=wrong_id, resume=mode)


def listings(run_id: str) -> None:
    api = wandb.Api()
    assert PROJECT in [project.name for project in api.projects()]
    assert [run.id for run in api.runs(PROJECT)] == [run_id]
    assert len(api.runs(PROJECT, filters={"config.lr": {"$lt": 0.5}})) == 1
    assert len(api.runs(PROJECT, filters={"config.optimizer.name": "adam"})) == 1
    assert len(api.runs(PROJECT, filters={"summary_metrics.best": {"$gt": 1}})) == 0
    assert len(api.runs(PROJECT, filters={"$and": [{"tags": "a"}, {"state": "failed"}]})) == 1
    assert len(api.runs(PROJECT, filters={"display_name": {"$regex": "^ren"}})) == 1
    with refused(ValueError):
        list(api.runs(f"{PROJECT}-absent"))
    with refused(ValueError, wandb.errors.CommError):
        api.run(f"{PROJECT}/absent")
    assert api.viewer.username == api.default_entity
    api.create_project(f"{PROJECT}-made", api.default_entity)
    api = wandb.Api()  # listings are kept by the old one
    assert f"{PROJECT}-made" in [project.name for project in api.projects(api.default_entity)]
    assert list(api.project(PROJECT, api.default_entity).sweeps()) == []


def delete(run_id: str) -> None:
    api = wandb.Api()
    api.run(f"{PROJECT}/{run_id}").delete()
    assert len(wandb.Api().runs(PROJECT)) == 0


if __name__ == "__main__":
    made = first_run()
    for part in (check_run, change_run, resume, listings, delete):
        part(made)
        sys.stdout.write(f"{part.__name__}\n")
