"""A run that is asked to stop while it works; the SDK interrupts its main thread."""

from __future__ import annotations

import base64
import json
import os
import sys
import time
import urllib.request

import wandb

PROJECT = sys.argv[1]
# The SDK asks every 15 seconds.
DEADLINE_S = 60.0


def ask_to_stop(run: wandb.Run) -> None:
    api_run = wandb.Api().run(f"{PROJECT}/{run.id}")
    if hasattr(api_run, "stop"):
        api_run.stop()
        return
    mutation = "mutation($id: ID!) { stopRun(input: {id: $id}) { success } }"
    body = {"query": mutation, "variables": {"id": api_run.storage_id}}
    key = base64.b64encode(f"api:{os.environ['WANDB_API_KEY']}".encode()).decode()
    request = urllib.request.Request(
        os.environ["WANDB_BASE_URL"] + "/graphql",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": f"Basic {key}"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert json.load(answer)["data"]["stopRun"]["success"]


def main() -> None:
    run = wandb.init(project=PROJECT)
    deadline = time.monotonic() + DEADLINE_S
    try:
        ask_to_stop(run)
        while time.monotonic() < deadline:
            run.log({"working": 1})
            time.sleep(0.1)
    except KeyboardInterrupt:
        run.finish(exit_code=255)
    else:
        raise AssertionError("the run was never stopped")
    assert wandb.Api().run(f"{PROJECT}/{run.id}").state == "killed"


if __name__ == "__main__":
    main()
