"""Makes one virtual environment for each wandb SDK that the backend is tested with.

The newest supported SDK lives in the main environment; the oldest and one between have
environments of their own under `.venvs/`, because two versions cannot share one. Needs nothing
but Python and its own standard library, does nothing when the environments are there, and is
safe to run twice at once.

    python3.11 tools/sdk_environments.py            make what is missing, print the interpreters
    python3.11 tools/sdk_environments.py --check    exit 1 when one is missing
"""

from __future__ import annotations

import argparse
import fcntl
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ROOT / ".venvs"

OLDEST = "0.22.0"
BETWEEN = "0.26.1"
VERSIONS = (OLDEST, BETWEEN)

PACKAGES = ("numpy<3",)
"""What the test flows need beside the SDK: tables and histograms of arrays."""


def directory(version: str) -> Path:
    """Return where the environment of SDK `version` lives."""
    return ENVIRONMENTS / f"wandb-{version}"


def interpreter(version: str) -> Path:
    """Return the Python that has SDK `version`; it need not exist yet."""
    return directory(version) / "bin" / "python"


def requirements(version: str) -> tuple[str, ...]:
    """Return what is installed into the environment of SDK `version`."""
    return (f"wandb=={version}", *PACKAGES)


def is_ready(version: str) -> bool:
    """Return whether the environment exists, complete, for the present requirements."""
    stamp = directory(version) / "ready"
    if not (stamp.is_file() and interpreter(version).exists()):
        return False
    return stamp.read_text(encoding="utf-8") == _stamp(version)


def make(version: str) -> None:
    """Make the environment of SDK `version` anew; the stamp is written last.

    Raises:
        subprocess.CalledProcessError: venv or pip failed.
    """
    target = directory(version)
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(target)], check=True)
    install = [str(interpreter(version)), "-m", "pip", "install", "--quiet"]
    subprocess.run([*install, "--disable-pip-version-check", *requirements(version)], check=True)
    (target / "ready").write_text(_stamp(version), encoding="utf-8")


def _stamp(version: str) -> str:
    return "\n".join((sys.version, *requirements(version)))


@contextmanager
def _only_one() -> Iterator[None]:
    ENVIRONMENTS.mkdir(exist_ok=True)
    with (ENVIRONMENTS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> int:
    """Make what is missing and print each version with its interpreter."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say whether all are there")
    check_only = parser.parse_args().check
    if not check_only and not all(is_ready(version) for version in VERSIONS):
        with _only_one():
            for version in VERSIONS:
                if not is_ready(version):
                    print(f"making the environment of wandb {version} ...", file=sys.stderr)
                    make(version)
    for version in VERSIONS:
        state = interpreter(version) if is_ready(version) else "missing"
        print(f"{version}\t{state}")
    return 0 if all(is_ready(version) for version in VERSIONS) else 1


if __name__ == "__main__":
    sys.exit(main())
