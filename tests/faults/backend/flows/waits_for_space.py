"""Log while the server's disk is full, until the SDK was refused; then ask for space; finish.

Arguments: a file to touch when the run has started, one to wait for (the disk is full), and
one to touch when the SDK was refused.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import wandb

started, full, refused = (Path(argument) for argument in sys.argv[1:])


def wait_until(condition: object) -> None:
    deadline = 60.0
    while not condition():
        threading.Event().wait(0.02)
        deadline -= 0.02
        if deadline < 0:
            raise SystemExit("waited in vain")


settings = wandb.Settings(
    x_file_stream_retry_wait_min_seconds=0.5,
    x_file_stream_retry_wait_max_seconds=1,
    x_file_transfer_retry_wait_min_seconds=0.5,
    x_file_transfer_retry_wait_max_seconds=1,
    x_graphql_retry_wait_min_seconds=0.5,
    x_graphql_retry_wait_max_seconds=1,
)
with wandb.init(project="space", id="waits", settings=settings) as run:
    started.touch()
    wait_until(full.exists)
    for step in range(50):
        run.log({"loss": step})
    Path("saved.bin").write_bytes(b"s" * 200_000)
    run.save("saved.bin", policy="now")
    log = Path(run.settings.log_internal)
    wait_until(lambda: log.exists() and "507" in log.read_text())
    refused.touch()
