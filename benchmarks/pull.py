"""`registry pull` against the SDK's own download and curl, over loopback.

    python -m benchmarks.pull [--size-mb 500] [--rounds 3]

All read the same artifact from the same embedded backend; ratios are of medians
within this one run. MD5 is the rate at which this machine can check the
manifest's digests on one core, which bounds every verified download of one file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.backend_process import BackendProcess, backend_process

LOG = """
import json, os, struct, sys, pathlib, wandb
folder, size = pathlib.Path(sys.argv[1]), int(sys.argv[2])
folder.mkdir()
header = b'{"__metadata__":{}}'
with (folder / "model.safetensors").open("wb") as file:
    file.write(struct.pack("<Q", len(header)) + header)
    for _ in range(size // 1_000_000):
        file.write(os.urandom(1_000_000))
(folder / "config.json").write_text("{}")
with wandb.init(project="bench") as run:
    artifact = wandb.Artifact("run-bench", type="model")
    artifact.add_dir(str(folder))
    run.log_artifact(artifact).wait()
"""
SDK = """
import sys, time, wandb
began = time.monotonic()
wandb.Api().artifact("local/bench/run-bench:v0").download(root=sys.argv[1])
print(time.monotonic() - began)
"""
OURS = """
import time
began = time.monotonic()
import registry
registry.pull("run-bench:v0")
print(time.monotonic() - began)
"""
WHERE = """
import json, wandb
artifact = wandb.Api().artifact("local/bench/run-bench:v0")
print(json.dumps({f.name: f.direct_url for f in artifact.files()}))
"""


def python(script: str, environment: dict[str, str], *arguments: str) -> str:
    """Run a script in a process of its own; return the last line that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""


def disk_bytes(*roots: Path) -> int:
    """Return what the files beneath the roots occupy, each inode once."""
    found = {p.lstat().st_ino: p.lstat().st_blocks * 512 for r in roots for p in r.rglob("*")}
    return sum(found.values())


def curl(environment: dict[str, str], target: Path) -> float:
    """Fetch the files with curl; return the seconds."""
    addresses = json.loads(python(WHERE, environment))
    target.mkdir()
    command = ["curl", "-sS", "--fail"]
    for name, url in addresses.items():
        command += ["-o", str(target / name), url]
    began_s = time.monotonic()
    subprocess.run(command, check=True)
    return time.monotonic() - began_s


def md5(path: Path) -> float:
    """Hash a file with MD5; return the seconds."""
    began_s = time.monotonic()
    with path.open("rb") as file:
        hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    return time.monotonic() - began_s


def measure(backend: BackendProcess, root: Path, size_mb: int, rounds: int) -> None:
    """Measure all contestants in turn, several times, and print the medians."""
    python(LOG, backend.env(root / "log"), str(root / "m"), str(size_mb * 1_000_000))
    seconds: dict[str, list[float]] = {
        "registry pull": [],
        "SDK download": [],
        "curl": [],
        "MD5": [],
    }
    disk: dict[str, int] = {}
    for number in range(rounds):
        home = root / f"home{number}"
        cache = root / f"cache{number}"
        environment = backend.env(
            home, RUNPORT_CACHE_DIR=str(cache), WANDB_PROJECT="bench", PYTHONPATH=os.getcwd()
        )
        steps: dict[str, Callable[[], float]] = {
            "registry pull": lambda e=environment: float(python(OURS, e)),  # type: ignore[misc]
            "SDK download": lambda e=environment, n=number: float(
                python(SDK, e, str(root / f"sdk{n}"))
            ),  # type: ignore[misc]
            "curl": lambda e=environment, n=number: curl(e, root / f"curl{n}"),  # type: ignore[misc]
            "MD5": lambda: md5(root / "m" / "model.safetensors"),
        }
        for name, step in steps.items():
            seconds[name].append(step())
        disk["registry pull"] = disk_bytes(cache)
        disk["SDK download"] = disk_bytes(root / f"sdk{number}", home / "cache")
        for path in (home, cache, root / f"sdk{number}", root / f"curl{number}"):
            shutil.rmtree(path)
    report(seconds, disk, size_mb)


def report(seconds: dict[str, list[float]], disk: dict[str, int], size_mb: int) -> None:
    """Print medians, rates, ratios and what lies on disk."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        held = f"  {disk[name] / size_mb / 1e6:.2f}x on disk" if name in disk else ""
        print(f"{name:<14} {median:7.2f} s  {size_mb / median:7.0f} MB/s{held}")
    bound = max(medians["curl"], medians["MD5"])
    print(f"against the SDK            {medians['SDK download'] / medians['registry pull']:.2f}x")
    print(f"against min(curl, MD5)     {bound / medians['registry pull']:.2f}")


def main() -> None:
    """Parse the options and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size-mb", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="runport-bench-") as folder:
        root = Path(folder)
        with backend_process(root / "data") as backend:
            measure(backend, root, options.size_mb, options.rounds)


if __name__ == "__main__":
    main()
