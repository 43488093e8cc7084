"""Start and end worker processes.

A worker is spawned afresh (no fork: threads and native runtimes do not survive one), gets one
end of a socket pair and a shared board, and lives until its end of the socket closes.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from serving.errors import LoadError
from serving.worker.board import RunningBoard
from serving.worker.client import DECODER, WorkerClient
from serving.worker.frames import Channel
from serving.worker.messages import Loaded, WorkerPlan

_log = structlog.get_logger(__name__)

STREAM_LIMIT_BYTES = 2**20

_KEPT = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "USER")
_KEPT_PREFIXES = ("LC_", "PYTHON", "OMP_", "KMP_", "CUDA_", "NVIDIA_", "RUNPORT_", "HF_HOME")


def worker_environment(environment: Mapping[str, str], engine_threads: int) -> dict[str, str]:
    """Return the environment of a worker: no keys, no network for model libraries.

    A worker touches bytes that came from an artifact, so it is given no secret to lose.
    """
    kept = {
        name: value
        for name, value in environment.items()
        if name in _KEPT or name.startswith(_KEPT_PREFIXES)
    }
    kept.update(
        HF_HUB_OFFLINE="1",
        TRANSFORMERS_OFFLINE="1",
        TOKENIZERS_PARALLELISM="false",
        OMP_NUM_THREADS=str(engine_threads),
    )
    return kept


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """A worker that has loaded its version.

    Attributes:
        client: for requests.
        loaded: what the worker said about itself.
    """

    client: WorkerClient
    loaded: Loaded
    process: asyncio.subprocess.Process
    board: RunningBoard

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        return self.process.pid

    def kill(self) -> None:
        """End the process at once; requests inside it fail."""
        _signal(self.process, signal.SIGKILL)

    async def stop(self, grace_s: float) -> None:
        """Close the connection, wait for the process to exit, kill it after `grace_s`."""
        self.client.close()
        await _end(self.process, grace_s)
        await self.client.wait_closed()
        self.board.close()


async def start_worker(
    name: str, plan: WorkerPlan, environment: Mapping[str, str], *, timeout_s: float
) -> WorkerProcess:
    """Spawn a worker and have it load `plan`.

    Raises:
        LoadError: it could not load, died, or took longer than `timeout_s`.
    """
    limits = plan.limits
    lanes = limits.slots + limits.tokenize_threads
    board, board_fd = RunningBoard.create(lanes, limits.max_batch_rows)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    numbers = {
        "--socket-fd": theirs.fileno(),
        "--board-fd": board_fd,
        "--lanes": lanes,
        "--width": limits.max_batch_rows,
        "--parent": os.getpid(),
    }
    arguments = [part for option, value in numbers.items() for part in (option, str(value))]
    try:
        # -P: a folder named `serving` in the working directory must not be imported.
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "serving.worker", "--name", name, *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            pass_fds=(theirs.fileno(), board_fd),
            env=worker_environment(environment, plan.engine_threads),
            start_new_session=True,
        )
    finally:
        theirs.close()
        os.close(board_fd)
    reader, writer = await asyncio.open_unix_connection(sock=ours, limit=STREAM_LIMIT_BYTES)
    client = WorkerClient(Channel(reader, writer, DECODER), board)
    try:
        async with asyncio.timeout(timeout_s):
            loaded = await client.load(plan)
    except BaseException as error:
        client.close()
        _signal(process, signal.SIGKILL)
        await process.wait()
        board.close()
        if isinstance(error, TimeoutError):
            raise LoadError(
                f"The worker did not finish loading within {timeout_s:g} s.",
                hint="Allow more time with --load-timeout.",
            ) from error
        raise
    return WorkerProcess(client, loaded, process, board)


async def _end(process: asyncio.subprocess.Process, grace_s: float) -> None:
    try:
        async with asyncio.timeout(grace_s):
            await process.wait()
    except TimeoutError:
        _log.warning("worker.killed", pid=process.pid, grace_s=grace_s)
        _signal(process, signal.SIGKILL)
        await process.wait()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    if process.returncode is None:
        try:
            process.send_signal(number)
        except ProcessLookupError:
            return
