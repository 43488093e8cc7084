"""The steps of the demo, in order; each uses the command that a user would.

backend -> train twice -> list -> pull -> export -> serve best -> predict
        -> promote under load -> metrics read back from W&B -> summary
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from rich.console import Console

from demo.corpus import make_corpus
from demo.processes import Server, Shell, StepError
from demo.summary import Outcome, print_summary
from demo.traffic import Traffic

RUN_NAME = "bert"
COLLECTION = f"run-{RUN_NAME}"
CLIENTS = 4
REQUESTS_BEFORE = 300
REQUESTS_AFTER = 300
SWAP_WITHIN_S = 90.0
METRICS_WITHIN_S = 60.0


def walk(*, keep: bool) -> None:
    """Walk the whole road in a folder of its own.

    Raises:
        StepError: a step failed; what was started has been stopped.
    """
    console = Console()
    started = time.monotonic()
    root = Path(".demo").absolute()
    root.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=root))
    servers: list[Server] = []
    finished = False
    try:
        outcome = _steps(console, folder, servers)
        outcome.seconds = time.monotonic() - started
        print_summary(console, outcome)
        finished = True
    finally:
        if finished and keep:
            _leave_running(console, folder, servers)
        else:
            for server in reversed(servers):
                server.stop()
            if finished:
                shutil.rmtree(folder)


def _steps(console: Console, folder: Path, servers: list[Server]) -> Outcome:
    outcome = Outcome()
    shell = Shell(console, folder, _environment(folder))

    _title(console, "1. A W&B-compatible backend on this machine; no account, no network")
    servers.append(_start_backend(shell, folder, outcome))

    _title(console, "2. Train a small BERT from scratch, twice; the second run for longer")
    for version, epochs in (("v0", 3), ("v1", 8)):
        with outcome.timed(f"train {version}"):
            _train(shell, folder, epochs)
    shell.run("registry", "list", COLLECTION)

    _title(console, "3. Pull, verified, and export")
    shell.run("registry", "promote", f"{COLLECTION}:v0", "best", "--reason", "first model")
    with outcome.timed("pull v0"):
        shell.run("registry", "pull", f"{COLLECTION}:v0")
    with outcome.timed("export v0"):
        outcome.export = json.loads(
            shell.run("registry", "export", f"{COLLECTION}:v0", "--json", quiet=True)
        )

    _title(console, "4. Serve whatever `best` points to, and ask it")
    servers.append(_start_server(shell, outcome))
    shell.run("registry", "predict", RUN_NAME, "the battery is not reliable", "--url", outcome.url)

    _title(console, "5. Promote by evidence while requests flow")
    _promote_under_load(console, shell, outcome)
    shell.run("registry", "predict", RUN_NAME, "the battery is not reliable", "--url", outcome.url)

    _title(console, "6. What the server reported to W&B, read back through wandb.Api()")
    outcome.reported = _read_metrics_back(shell, outcome)
    return outcome


def _title(console: Console, text: str) -> None:
    console.print(f"\n[bold]{text}[/]", highlight=False)


def _environment(folder: Path) -> dict[str, str]:
    """Keep everything that the demo writes in its folder, away from the user's own state."""
    wandb = folder / "wandb"
    wandb.mkdir()
    return {
        "RUNPORT_CACHE_DIR": str(folder / "cache"),
        "RUNPORT_DATA_DIR": str(folder / "data"),
        "WANDB_DIR": str(wandb),
        "WANDB_CACHE_DIR": str(wandb / "cache"),
        "WANDB_CONFIG_DIR": str(wandb / "config"),
        "WANDB_DATA_DIR": str(wandb / "data"),
        "WANDB_PROJECT": "huggingface",
        "WANDB_ENTITY": "",
        "WANDB_SILENT": "true",
        "WANDB_LOG_MODEL": "true",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(os.cpu_count() or 1),
    }


def _start_backend(shell: Shell, folder: Path, outcome: Outcome) -> Server:
    data = folder / "data" / "backend"
    server = shell.serve(
        "backend",
        *("registry", "backend", "--port", "0"),
        ready=(data / "server.json").exists,
        within_s=30,
    )
    try:
        exports = json.loads(shell.run("registry", "backend", "env", "--json", quiet=True))
        shell.export(exports)
    except BaseException:
        server.stop()
        raise
    outcome.backend_url = exports["WANDB_BASE_URL"]
    outcome.api_key = exports["WANDB_API_KEY"]
    return server


def _train(shell: Shell, folder: Path, epochs: int) -> None:
    output = folder / f"trained-{epochs}-epochs"
    command = ("--run-name", RUN_NAME, "--epochs", str(epochs), "--output", str(output))
    shell.run("python", "-m", "demo.train", *command, quiet=True)


def _start_server(shell: Shell, outcome: Outcome) -> Server:
    port = _free_port()
    outcome.url = f"http://127.0.0.1:{port}"

    def is_ready() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{outcome.url}/readyz", timeout=2).status_code == 200
        return False

    with outcome.timed("serve best: start to ready"):
        return shell.serve(
            "server",
            *("registry", "serve", f"{RUN_NAME}={COLLECTION}:best", "--port", str(port)),
            *("--report-window", "3"),
            ready=is_ready,
            within_s=120,
        )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _promote_under_load(console: Console, shell: Shell, outcome: Outcome) -> None:
    texts = [review.text for review in make_corpus(200, seed=3)]
    url = f"{outcome.url}/models/{RUN_NAME}"
    with Traffic(url, texts, clients=CLIENTS, pause_s=0.01) as traffic:
        tally = traffic.tally
        _wait(lambda: tally.answered >= REQUESTS_BEFORE, SWAP_WITHIN_S, "the first requests")
        command = ("promote", COLLECTION, "best", "--by", "eval/f1", "--mode", "max")
        outcome.promotion = json.loads(shell.run("registry", *command, "--json", quiet=True))
        console.print(f"  {CLIENTS} clients are asking meanwhile …", style="dim")
        promoted = time.monotonic()
        _wait(lambda: any(name.endswith("v1") for name in tally.versions), SWAP_WITHIN_S, "v1")
        outcome.seconds_to_swap = time.monotonic() - promoted
        goal = tally.answered + REQUESTS_AFTER
        _wait(lambda: tally.answered >= goal, SWAP_WITHIN_S, "requests after the swap")
    outcome.tally = tally
    if tally.failures:
        raise StepError(f"{len(tally.failures)} requests failed, such as {tally.failures[0]}")


def _read_metrics_back(shell: Shell, outcome: Outcome) -> list[dict[str, object]]:
    """Wait until W&B holds every request that the clients counted, and return the runs."""
    deadline = time.monotonic() + METRICS_WITHIN_S
    expected = outcome.tally.answered
    while True:
        runs: list[dict[str, object]] = json.loads(
            shell.run("python", "-m", "demo.read_metrics", quiet=True)
        )
        if sum(int(str(run["requests"])) for run in runs) >= expected:
            return runs
        if time.monotonic() > deadline:
            raise StepError(f"W&B does not hold the {expected} requests: {runs}")
        time.sleep(2)


def _wait(reached: Callable[[], bool], within_s: float, what: str) -> None:
    deadline = time.monotonic() + within_s
    while not reached():
        if time.monotonic() > deadline:
            raise StepError(f"Waited {within_s:.0f} s for {what}.")
        time.sleep(0.05)


def _leave_running(console: Console, folder: Path, servers: list[Server]) -> None:
    data = shlex.quote(str(folder / "data" / "backend"))
    pids = " ".join(str(server.process.pid) for server in reversed(servers))
    console.print("Left running. In this shell:", highlight=False)
    console.print(
        f'  eval "$(.venv/bin/registry backend env --data {data})"', highlight=False, soft_wrap=True
    )
    console.print(f"  kill {pids}    # stops both", highlight=False)
