"""Log a file of more than 2 GiB, fetch it again and verify it. Argument: the project."""

from __future__ import annotations

import sys
from pathlib import Path

import wandb

BLOCKS = 2200

with wandb.init(project=sys.argv[1]) as run:
    artifact = wandb.Artifact("huge", "dataset")
    with artifact.new_file("huge.bin", "wb") as file:
        for number in range(BLOCKS):
            file.write(number.to_bytes(8, "big") * (1 << 17))
    run.log_artifact(artifact).wait(timeout=300)
read = wandb.Api().artifact(f"{sys.argv[1]}/huge:v0")
root = Path(read.download(root="fetched", skip_cache=True))
read.verify(root=str(root))
with (root / "huge.bin").open("rb") as file:
    for number in range(BLOCKS):
        assert file.read(1 << 20) == number.to_bytes(8, "big") * (1 << 17), number
    assert not file.read(1)
