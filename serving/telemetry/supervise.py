"""Keep the reporter process running, and let it end in bounded time.

The child's standard input is its lifeline: the end of it, by `stop` or by our
death, tells the reporter to deliver what is there and to leave.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
import structlog

_log = structlog.get_logger(__name__)

_BACKOFF_FIRST_S = 1.0
_BACKOFF_MOST_S = 60.0
_HEALTHY_AFTER_S = 60.0
_TERM_GRACE_S = 2.0

_RUN_VARIABLES = frozenset(
    {
        "WANDB_GROUP",
        "WANDB_JOB_TYPE",
        "WANDB_MODE",
        "WANDB_NAME",
        "WANDB_NOTES",
        "WANDB_RESUME",
        "WANDB_RUN_GROUP",
        "WANDB_RUN_ID",
        "WANDB_SERVICE",
        "WANDB_SWEEP_ID",
        "WANDB_TAGS",
    }
)
"""Variables that shape the caller's own run, or lend it a service that dies with it."""


class ReporterCommand(msgspec.Struct, frozen=True):
    """How to start the reporter.

    Attributes:
        argv: the command; `--spool DIR` is appended.
        environment: the child's whole environment (W&B's address and key travel in it).
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]

    @classmethod
    def for_this_python(cls, environment: Mapping[str, str]) -> ReporterCommand:
        """Return the command that runs `serving.telemetry.reporter` in this interpreter.

        Variables that name or shape one W&B run (`WANDB_RUN_ID`, …) are left out:
        the reporter has several.
        """
        kept = {name: text for name, text in environment.items() if name not in _RUN_VARIABLES}
        return cls((sys.executable, "-m", "serving.telemetry.reporter"), kept)


class Supervisor:
    """Starts the reporter, and starts it again with backoff when it dies.

    Attributes:
        restarts: how often it was started again.
    """

    def __init__(self, command: ReporterCommand) -> None:
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self.restarts = 0

    @property
    def process_id(self) -> int | None:
        """The running reporter's process id; None while it is down."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    def start(self, lane: Path) -> None:
        """Begin to supervise a reporter of this lane; does nothing the second time."""
        if self._task is None and not self._stopping.is_set():
            self._task = asyncio.create_task(self._supervise(lane), name="telemetry-reporter")

    async def _supervise(self, lane: Path) -> None:
        backoff_s = _BACKOFF_FIRST_S
        clock = asyncio.get_running_loop().time
        while not self._stopping.is_set():
            started_s = clock()
            code = await self._run_once(lane)
            if self._stopping.is_set():
                return
            if clock() - started_s > _HEALTHY_AFTER_S:
                backoff_s = _BACKOFF_FIRST_S
            _log.warning("telemetry.reporter_died", code=code, restart_in_s=backoff_s)
            await _wait(self._stopping, backoff_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            backoff_s = min(_BACKOFF_MOST_S, 2 * backoff_s)
            self.restarts += 1

    async def _run_once(self, lane: Path) -> int | None:
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command.argv,
                "--spool",
                str(lane),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                env=dict(self._command.environment),
                # Ctrl-C at the terminal is for the server, which then ends the
                # reporter in order.
                start_new_session=True,
            )
        except OSError as error:
            _log.error("telemetry.reporter_not_started", error=str(error))
            return None
        code = await self._process.wait()
        _kill_group(self._process.pid)
        return code

    async def stop(self, timeout_s: float) -> bool:
        """Let the reporter deliver for `timeout_s`, then end it; say whether it ended itself."""
        self._stopping.set()
        task, process = self._task, self._process
        if task is None:
            return True
        ended = True
        if process is not None and process.returncode is None:
            if process.stdin is not None:
                process.stdin.close()
            ended = await _ends(task, timeout_s)
            if not ended:
                _signal(process, signal.SIGTERM)
                if not await _ends(task, _TERM_GRACE_S):
                    _kill_group(process.pid)
        await task
        return ended


async def _ends(task: asyncio.Task[None], timeout_s: float) -> bool:
    done, _ = await asyncio.wait([task], timeout=timeout_s)
    return bool(done)


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), timeout_s)


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def _kill_group(group: int) -> None:
    """Kill what is left of the reporter; the SDK's service follows it by itself."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
