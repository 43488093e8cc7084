"""The contenders' worker processes: started when first needed, stopped when memory runs short."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from serving.tune.contenders import Contender
from serving.worker.messages import WorkerPlan
from serving.worker.process import WorkerProcess, start_worker

_STOP_GRACE_S = 5.0
_LOAD_FLOOR_S = 60.0
_LOAD_BYTES_PER_S = 20e6
_ENGINE_BYTES = {"onnx": 200 * 2**20, "openvino": 400 * 2**20, "torch": 800 * 2**20}
_PER_FILE_BYTE = 2.5
"""Memory of a loading worker for each byte on disk: the file's pages, and the weights packed."""

_BARE = (
    "import re, serving.worker.host, serving.tasks; "
    "print(re.search(r'VmRSS:\\s+(\\d+)', open('/proc/self/status').read())[1])"
)


class Workers:
    """Worker processes by contender; use as an async context manager, which ends them all.

    Each has a process of its own, so that what crashes, hangs or takes all memory is one contender.

    Args:
        environment: of this process, for its children.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        # Least recently used first.
        self._running: dict[Contender, WorkerProcess] = {}

    async def __aenter__(self) -> Workers:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._running.values():
            worker.kill()
        await asyncio.gather(*(self.stop(contender) for contender in [*self._running]))

    async def get(self, contender: Contender) -> WorkerProcess:
        """Return the contender's worker, loaded and warm.

        Raises:
            LoadError: it cannot be started.
        """
        worker = self._running.pop(contender, None)
        if worker is None:
            await self._make_room(contender)
            plan = WorkerPlan(
                directory=str(contender.directory),
                task=contender.task,
                engine=contender.engine,
                engine_threads=contender.layout.engine_threads,
                limits=contender.limits(),
            )
            timeout_s = _LOAD_FLOOR_S + _estimate_bytes(contender) / _LOAD_BYTES_PER_S
            worker = await start_worker(
                f"tune={contender.title}", plan, self._environment, timeout_s=timeout_s
            )
        self._running[contender] = worker
        return worker

    async def stop(self, contender: Contender) -> None:
        """End the contender's worker, if there is one."""
        worker = self._running.pop(contender, None)
        if worker is not None:
            await worker.stop(_STOP_GRACE_S)

    async def _make_room(self, contender: Contender) -> None:
        needed_bytes = _estimate_bytes(contender)
        while self._running and available_bytes() < needed_bytes:
            await self.stop(next(iter(self._running)))


def _estimate_bytes(contender: Contender) -> float:
    files = (path.stat().st_size for path in contender.directory.rglob("*") if path.is_file())
    return _PER_FILE_BYTE * sum(files) + _ENGINE_BYTES.get(contender.engine, 0)


def available_bytes() -> float:
    """Return how much memory the kernel says is free to take; infinite where it does not say."""
    found = _field(Path("/proc/meminfo"), "MemAvailable")
    return float("inf") if found is None else found


def resident_bytes(pid: int) -> int | None:
    """Return the resident memory of a process; None where the kernel does not say."""
    return _field(Path(f"/proc/{pid}/status"), "VmRSS")


async def bare_bytes() -> int | None:
    """Return the resident memory of a worker without a model; None where it cannot be known."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-c", _BARE),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        printed, _ = await process.communicate()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return int(printed) * 1024 if printed.strip().isdigit() else None


def _field(path: Path, name: str) -> int | None:
    """Return a size in bytes out of one of the kernel's tables."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in path.read_text("ascii", "replace").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None
