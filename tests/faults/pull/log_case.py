"""The artifact that the trials fetch, and the trials as a process of their own."""

from __future__ import annotations

import hashlib
import json
import random
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.backend_process import REPOSITORY, BackendProcess
from tests.faults.backend.wire import PROJECT, Wire
from tests.faults.pull.clients import Case

BIG_BYTES = 3 * 1024 * 1024 + 4321


def make_files() -> dict[str, bytes]:
    """One file of several ranges, and small ones."""
    rng = random.Random(11)
    header = b'{"__metadata__":{}}'
    weights = struct.pack("<Q", len(header)) + header + rng.randbytes(BIG_BYTES)
    tokens = {str(i): rng.randrange(10**9) for i in range(20_000)}
    return {
        "model.safetensors": weights,
        "tokenizer.json": json.dumps(tokens).encode(),
        "config.json": b'{"model_type": "bert"}',
    }


def log_case(backend: BackendProcess) -> Case:
    """Log the artifact; return what there is to know about it."""
    files = make_files()
    with Wire(backend) as wire:
        wire.log_artifact("run-hurt", files, artifactTypeName="model")
    facts = {
        path: (len(raw), hashlib.md5(raw).hexdigest(), hashlib.sha256(raw).hexdigest())
        for path, raw in files.items()
    }
    return Case(backend.base_url, backend.api_key, "local", PROJECT, "run-hurt", facts)


def run_trials(
    backend: BackendProcess, case: Case, client: str, count: int, folder: Path, *, seed: int = 1
) -> list[dict[str, Any]]:
    """Run trials of one client; return what came of each."""
    folder.mkdir(parents=True, exist_ok=True)
    case_file = folder / "direct.json"
    case.save(case_file)
    program = [sys.executable, "-m", "tests.faults.pull.trials", client, str(count), str(seed)]
    done = subprocess.run(
        [*program, str(case_file), str(folder / "work")],
        cwd=REPOSITORY,
        env=backend.env(folder / "home", PYTHONPATH=str(REPOSITORY)),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
