"""Log rows, files and an artifact while the server is killed and started again.

Arguments: the project, a file to touch when the artifact's upload begins, one to wait for before
the end. Leaves the number of steps in `steps`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import wandb

project, flowing, over = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
settings = wandb.Settings(
    x_file_stream_retry_wait_min_seconds=0.5,
    x_file_stream_retry_wait_max_seconds=1,
    x_file_transfer_retry_wait_min_seconds=0.5,
    x_file_transfer_retry_wait_max_seconds=1,
    x_graphql_retry_wait_min_seconds=0.5,
    x_graphql_retry_wait_max_seconds=1,
)
with wandb.init(project=project, id="steady", settings=settings) as run:
    artifact = wandb.Artifact("weights", "model")
    with artifact.new_file("weights.bin", "wb") as file:
        for block in range(64):
            file.write(bytes([block]) * (1 << 20))
    flowing.touch()
    run.log_artifact(artifact, aliases=["best"])
    step = 0
    deadline = time.monotonic() + 90
    while not over.exists() and time.monotonic() < deadline:
        run.log({"loss": step})
        sys.stdout.write(f"step {step}\n")
        step += 1
        time.sleep(0.005)
    Path("last.txt").write_text(str(step))
    run.save("last.txt", policy="now")
Path("steps").write_text(str(step))
