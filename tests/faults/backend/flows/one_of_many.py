"""One of several processes that log runs and versions into one project and collection.

Arguments: the project, this process's number, how many versions to log.
"""

from __future__ import annotations

import sys

import wandb

project, number, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with wandb.init(project=project, id=f"process-{number}", group="many") as run:
    for index in range(count):
        artifact = wandb.Artifact("shared", "dataset")
        with artifact.new_file("who.txt") as file:
            file.write(f"{number} {index}")
        with artifact.new_file("same.txt") as file:
            file.write("the same in all")
        run.log_artifact(artifact, aliases=["best"]).wait(timeout=90)
        run.log({"version": int(artifact.version.removeprefix("v")), "index": index})
