"""Log each folder as a version of the artifact `run-bert`; the first is `best`."""

import sys

import wandb

project, *folders = sys.argv[1:]
with wandb.init(project=project, name="bert") as run:
    for index, folder in enumerate(folders):
        artifact = wandb.Artifact("run-bert", type="model", metadata={"eval/f1": index / 10})
        artifact.add_dir(folder)
        run.log_artifact(artifact, aliases=["best"] if index == 0 else []).wait()
