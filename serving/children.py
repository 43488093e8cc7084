"""Child processes of the server that are no workers: they prepare versions and watch aliases.

The W&B SDK and the exporter live in them and nowhere else: what leaks, hangs or dies there
does not touch a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import IO

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when the parent dies, also if it already has.

    Called in the child, first thing.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(1)


def claim_stdout() -> IO[str]:
    """Return this process's stdout for messages alone; anything else printed goes to stderr.

    Called in the child: libraries print where they like.
    """
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return messages


async def start_child(
    module: str, arguments: Sequence[str], environment: Mapping[str, str]
) -> asyncio.subprocess.Process:
    """Start `python -m module` with its stdout piped to us; `--parent PID` is added.

    It is in a session of its own: Ctrl-C reaches the server alone, which then ends it.
    """
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", module, "--parent", str(os.getpid()), *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env=dict(environment),
        start_new_session=True,
        limit=2**20,
    )


async def end_child(process: asyncio.subprocess.Process) -> None:
    """Kill the child and everything that it started, and reap it.

    It leads its own process group, so that an exporter or an SDK service below goes with it.
    """
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
