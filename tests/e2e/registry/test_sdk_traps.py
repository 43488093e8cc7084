"""What the SDK's own download lets through on this very server, and `registry pull` does not.

Each trap is shown to be there first: should the SDK close it, these tests say so.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backend_process import BackendProcess
from tests.e2e.registry.conftest import PROJECT, CommandLine

DOWNLOAD = (
    "import hashlib, pathlib, sys, wandb\n"
    "artifact = wandb.Api().artifact(sys.argv[1])\n"
    "root = pathlib.Path(artifact.download(root=sys.argv[2]))\n"
    "print(hashlib.sha256((root / 'model.safetensors').read_bytes()).hexdigest())\n"
)


def download(registry: CommandLine, name: str, target: Path) -> str:
    """Download with the SDK; return the SHA-256 of the weights."""
    done = subprocess.run(
        [sys.executable, "-c", DOWNLOAD, f"local/{PROJECT}/{name}", str(target)],
        env=registry.environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout.split()[-1]


def flip(path: Path) -> None:
    path.chmod(0o600)
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


@pytest.fixture
def damaged(logged: BackendProcess) -> Iterator[None]:
    """The weights of by-display-name, flipped on the server."""
    blobs = [p for p in logged.data_dir.rglob("*") if p.is_file() and p.stat().st_size > 2_999_000]
    (blob,) = [p for p in blobs if p.read_bytes()[-1] == 8]
    flip(blob)
    yield
    flip(blob)


@pytest.mark.usefixtures("damaged")
def test_digests_are_checked(registry: CommandLine, tmp_path: Path) -> None:
    download(registry, "by-display-name:v0", tmp_path / "sdk")  # No complaint.
    done = registry("pull", "by-display-name:v0")
    assert done.returncode == 5, done.stderr
    assert "wrong digest" in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "cache" / "versions").exists()


def test_a_poisoned_cache_is_found(registry: CommandLine, tmp_path: Path) -> None:
    right = download(registry, "run-bert:v0", tmp_path / "one")
    cache = Path(registry.environment["WANDB_CACHE_DIR"])
    (cached,) = [p for p in cache.rglob("*") if p.is_file() and p.stat().st_size > 2_999_000]
    flip(cached)
    assert download(registry, "run-bert:v0", tmp_path / "two") != right

    path = Path(registry.json("pull", "run-bert:v0")["path"])
    flip(path / "model.safetensors")
    again = registry.json("pull", "run-bert:v0", "--verify")
    assert not again["cached"]
    assert (Path(again["path"]) / "model.safetensors").read_bytes()[-1] == 0


def test_the_sdk_puts_files_on_disk_twice_and_pull_once(
    registry: CommandLine, tmp_path: Path
) -> None:
    download(registry, "run-bert:v1", tmp_path / "sdk")
    sdk = [Path(registry.environment["WANDB_CACHE_DIR"]), tmp_path / "sdk"]
    registry("pull", "run-bert:v1")
    assert large_inodes(*sdk) == 2
    assert large_inodes(tmp_path / "cache") == 1


def large_inodes(*roots: Path) -> int:
    files = (p.lstat() for root in roots for p in root.rglob("*") if p.is_file())
    return len({status.st_ino for status in files if status.st_size > 2_999_000})


TWO_VERSIONS = """
import hashlib, pathlib, sys, registry, wandb

def sha256(folder):
    return hashlib.sha256((pathlib.Path(folder) / "model.safetensors").read_bytes()).hexdigest()

api, name, target = wandb.Api(), sys.argv[1], sys.argv[2]
only = {"path_prefix": "model.safetensors"}
first = api.artifact(name + ":v0").download(root=target + "/0", skip_cache=True, **only)
second = api.artifact(name + ":v1").download(root=target + "/1", **only)
ours = [registry.pull(f"{name}:{version}").path for version in ("v0", "v1")]
print(*(sha256(folder) for folder in (first, second, *ours)))
"""


def test_one_version_is_not_answered_with_anothers_bytes(
    registry: CommandLine, tmp_path: Path
) -> None:
    """`skip_cache=True` leaves a path in the SDK's cache, and the next download answers from it."""
    done = subprocess.run(
        [sys.executable, "-c", TWO_VERSIONS, f"local/{PROJECT}/run-bert", str(tmp_path)],
        env=registry.environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    first, second, our_first, our_second = done.stdout.split()[-4:]
    assert second == first, "the SDK has closed this trap"
    assert our_first == first
    assert our_second != our_first
