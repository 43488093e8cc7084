"""What a child process that reads untrusted bytes takes from itself: memory, time, file sizes."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1


def limit_process(*, memory_bytes: int, cpu_s: int, file_bytes: int) -> None:
    """Limit this process for good; call it before anything heavy is imported.

    Args:
        memory_bytes: address space.
        cpu_s: processor time.
        file_bytes: longest file that it may write.
    """
    for kind, limit in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        # A lower limit of the surroundings stays, also where root could raise it.
        lower = [now for now in resource.getrlimit(kind) if now != resource.RLIM_INFINITY]
        allowed = min([limit, *lower])
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (allowed, allowed))


def end_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when the parent dies, also if it already has."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(1)
