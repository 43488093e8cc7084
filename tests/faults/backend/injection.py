"""Faults at a chosen system call of a running process, by `strace -e inject`."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

DETACH_TIMEOUT_S = 20


def require_strace() -> None:
    """Skip the test where processes cannot be traced."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    done = subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"], check=False)
    if done.returncode != 0:
        pytest.skip("strace may not trace processes here")


@contextmanager
def injected(pid: int, calls: str, fault: str, *, when: str) -> Iterator[None]:
    """While open, each thread's calls number `when` (strace's syntax) meet the fault."""
    tracer = subprocess.Popen(
        [
            *("strace", "-f", "-o", "/dev/null", "-e", f"trace={calls}"),
            *("-e", f"inject={calls}:{fault}:when={when}", "-p", str(pid)),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tracer.stderr
    try:
        line = tracer.stderr.readline()
        assert "attached" in line, line
        yield
    finally:
        # It ends by itself when the traced process was killed.
        tracer.terminate()
        tracer.wait(DETACH_TIMEOUT_S)
        tracer.stderr.close()


@contextmanager
def traced(pid: int, calls: str, log: Path) -> Iterator[None]:
    """While open, write down the process's calls in order."""
    tracer = subprocess.Popen(
        ["strace", "-f", "-o", str(log), "-e", f"trace={calls}", "-p", str(pid)],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tracer.stderr
    try:
        line = tracer.stderr.readline()
        assert "attached" in line, line
        yield
    finally:
        tracer.terminate()
        tracer.wait(DETACH_TIMEOUT_S)
        tracer.stderr.close()
