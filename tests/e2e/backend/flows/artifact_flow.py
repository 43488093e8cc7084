"""What the artifact flows share: runs, contents and expectations.

A flow is a script that any supported SDK's interpreter runs against a running backend, told
where it is by the usual `WANDB_*` variables, and that fails by itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import wandb

SDK = tuple(int(part) for part in wandb.__version__.split(".")[:2])
PROJECT = os.environ["WANDB_PROJECT"]
ENTITY = os.environ["WANDB_ENTITY"]


def start(**arguments) -> wandb.Run:
    """Start a run in the flow's project that watches neither console nor machine."""
    settings = wandb.Settings(console="off", x_disable_stats=True, x_disable_meta=True)
    return wandb.init(settings=settings, **arguments)


def path_of(name: str) -> str:
    """Return `entity/project/name`."""
    return f"{ENTITY}/{PROJECT}/{name}"


def write(name: str, text: str) -> Path:
    """Write `text` to `name` in the working directory and return its path."""
    path = Path.cwd() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def draft(name: str, kind: str, files: dict[str, str], **arguments) -> wandb.Artifact:
    """Return an artifact, not yet logged, that holds `files` (path -> text)."""
    artifact = wandb.Artifact(name, kind, **arguments)
    for path, text in files.items():
        with artifact.new_file(path) as file:
            file.write(text)
    return artifact


def log(run: wandb.Run, artifact: wandb.Artifact, **arguments) -> wandb.Artifact:
    """Log `artifact` and wait until the server has committed it."""
    return run.log_artifact(artifact, **arguments).wait(timeout=60)


def wait_for(name: str, timeout_s: float = 60) -> None:
    """Wait until another thread's or process's version `name` is committed."""
    deadline = time.monotonic() + timeout_s
    while not wandb.Api().artifact_exists(path_of(name)):
        assert time.monotonic() < deadline, f"{name} did not appear"
        time.sleep(0.05)


@contextmanager
def refused(*kinds: type[BaseException]) -> Iterator[None]:
    """Expect the block to raise one of `kinds`; by default what the SDK makes of a refusal."""
    expected = kinds or (wandb.errors.CommError, ValueError)
    try:
        yield
    except expected:
        return
    raise AssertionError("was not refused")


def same(found: object, expected: object) -> None:
    """Fail with both values when they differ."""
    assert found == expected, f"found {found!r}, expected {expected!r}"
