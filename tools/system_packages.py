"""Install the system packages that the tests use; quick when they are there.

Run by `make test`. Chromium drives the browser tests of the run pages. Only
Debian-like systems are handled; elsewhere it says what to install.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

PACKAGES = {"chromium": "chromium"}
"""Program looked for -> Debian package that brings it."""


def main() -> int:
    """Install what is missing; return the exit status."""
    missing = [package for program, package in PACKAGES.items() if not shutil.which(program)]
    if not missing:
        return 0
    if not shutil.which("apt-get"):
        print(f"Please install: {', '.join(missing)}", file=sys.stderr)
        return 1
    prefix = [] if os.geteuid() == 0 else ["sudo"]
    if prefix and not shutil.which("sudo"):
        print(f"Please install as root: apt-get install {' '.join(missing)}", file=sys.stderr)
        return 1
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
    for command in (["apt-get", "update", "-qq"], install):
        completed = subprocess.run([*prefix, *command], env=environment, check=False)
        if completed.returncode != 0:
            print(f"failed: {' '.join(command)}", file=sys.stderr)
            return completed.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
