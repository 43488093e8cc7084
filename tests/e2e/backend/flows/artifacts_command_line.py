"""The `wandb` command: put, get, ls, cache cleanup, and sync of an offline run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import wandb
from artifact_flow import PROJECT, draft, log, path_of, same, start, write


def command(*arguments: str) -> str:
    """Run the SDK's own `wandb` and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "wandb", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={**os.environ, "WANDB_SILENT": "false"},
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def put_and_got() -> None:
    folder = write("folder/file.txt", "put").parent
    printed = command(
        "artifact", "put", "--name", f"{PROJECT}/thing", "--type", "dataset", "--alias", "latest",
        "--alias", "mine", "--description", "by hand", str(folder),
    )  # fmt: skip
    assert "thing" in printed, printed
    command("artifact", "get", path_of("thing:mine"), "--root", "got")
    same(Path("got/file.txt").read_text(), "put")
    listed = command("artifact", "ls", path_of("").rstrip("/"))
    assert "thing:v0" in listed, listed
    cleaned = command("artifact", "cache", "cleanup", "1B")
    assert "Reclaimed" in cleaned, cleaned


def synced_after_offline() -> None:
    with start() as online:
        log(online, draft("known", "dataset", {"k": "k"}))
    with start(config={"lr": 0.5}, mode="offline") as run:
        run.log({"loss": 1.0})
        run.log_artifact(draft("away", "model", {"w": "away"}), aliases=["latest", "later"])
        folder = Path(run.dir).parent
    same(folder.name.startswith("offline-"), True)
    api = wandb.Api()
    same(api.artifact_collection_exists(path_of("away"), "model"), False)
    command("sync", str(folder))
    artifact = api.artifact(path_of("away:later"))
    same((artifact.version, artifact.logged_by().id), ("v0", run.id))
    same(sorted(artifact.aliases), ["later", "latest"])
    same(api.run(path_of(run.id)).config["lr"], 0.5)
    names = [a.name for a in api.run(path_of(run.id)).logged_artifacts()]
    same(names, ["away:v0"])


def main() -> None:
    put_and_got()
    synced_after_offline()


if __name__ == "__main__":
    main()
