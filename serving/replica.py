"""Keep the worker of one version alive: start, watch, start again with backoff, pause.

A `Predictor`. Requests that a crash caught in the queue are sent again to the next worker,
within their deadline; those that were inside the engine fail, for one of them may be the cause.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from serving.config import RestartPolicy
from serving.errors import (
    DeadlineExceededError,
    LoadError,
    NotReadyError,
    WorkerCrashedError,
    WorkerGoneError,
)
from serving.generation.protocol import Piece
from serving.prepare.plan import Prepared
from serving.worker.messages import Outcome, PredictRequest, Tell
from serving.worker.process import WorkerProcess

_log = structlog.get_logger(__name__)

SENDS = 3
"""How often a request may be given to a worker before it fails: itself and two crashes."""

Launch = Callable[[], Awaitable[WorkerProcess]]
"""Start a worker for the replica's version; raises LoadError."""


class _Listener:
    """Passes a stream's tokens on, and knows whether there were any."""

    def __init__(self, tell: Tell) -> None:
        self.told = False
        self._tell = tell

    def __call__(self, pieces: list[Piece]) -> None:
        self.told = True
        self._tell(pieces)


class Replica:
    """One version and the worker that holds it.

    Args:
        name: for the log.
        prepared: the version.
        launch: starts a worker for it.
        policy: when to start it again.
    """

    def __init__(
        self, name: str, prepared: Prepared, launch: Launch, policy: RestartPolicy
    ) -> None:
        self.prepared = prepared
        self.state = "starting"
        self.crashes = 0
        self._name = name
        self._launch = launch
        self._policy = policy
        self._worker: WorkerProcess | None = None
        self._watching: asyncio.Task[None] | None = None
        self._changed = asyncio.Condition()
        self._pending = 0

    @property
    def pending(self) -> int:
        """Requests inside."""
        return self._pending

    @property
    def ready(self) -> bool:
        """Whether a worker takes requests now."""
        return self.state == "ready"

    @property
    def worker(self) -> WorkerProcess | None:
        """The live worker, None while there is none."""
        return self._worker

    async def start(self) -> None:
        """Start the first worker and watch it from now on.

        Raises:
            LoadError: the version cannot be loaded; nothing is left running.
        """
        self._worker = await self._launch()
        # The folder tells the task; a reference alone does not.
        self.prepared = msgspec.structs.replace(self.prepared, task=self._worker.loaded.task)
        await self._become("ready")
        self._watching = asyncio.create_task(self._watch(self._worker))

    async def predict(self, request: PredictRequest, tell: Tell | None = None) -> list[Outcome]:
        """Return one outcome per item; see `messages.Predictor`, and `messages.Predict`."""
        if not self.ready:
            raise self._not_ready()
        self._pending += 1
        try:
            async with asyncio.timeout(request.timeout_s):
                return await self._send(request, _Listener(tell) if tell else None)
        except TimeoutError:
            raise DeadlineExceededError(
                "The deadline passed before the answer was ready.",
                hint="Send fewer or shorter texts, or allow more time with --request-timeout.",
            ) from None
        finally:
            self._pending -= 1
            if self._pending == 0 and self.state == "draining":
                await self._become("drained")

    async def drain(self, timeout_s: float) -> None:
        """Take no new requests and wait for those inside; returns early when there are none."""
        if self.state in {"stopped", "drained"}:
            return
        await self._become("draining" if self._pending else "drained")
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(lambda: self._pending == 0)
        except TimeoutError:
            _log.warning("replica.drain_timeout", name=self._name, left=self._pending)

    async def stop(self, grace_s: float) -> None:
        """End the worker; what is still inside fails."""
        await self._become("stopped")
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        if self._worker is not None:
            await self._worker.stop(grace_s)
            self._worker = None

    async def _send(self, request: PredictRequest, listener: _Listener | None) -> list[Outcome]:
        for attempt in range(1, SENDS + 1):
            worker = self._worker or await self._next_worker()
            try:
                return await worker.client.predict(request, listener)
            except WorkerGoneError:
                if listener is not None and listener.told:
                    # What the client has read cannot be taken back.
                    raise WorkerCrashedError(
                        "The worker died while it streamed this answer.",
                        hint="It is being started again. Send again.",
                        retry_after_s=1,
                    ) from None
                if attempt == SENDS:
                    raise
                # The watcher has yet to see what we saw; without this we would
                # send to the same dead worker again.
                if self._worker is worker:
                    self._worker = None
        raise self._not_ready()

    async def _next_worker(self) -> WorkerProcess:
        async with self._changed:
            await self._changed.wait_for(
                lambda: self._worker is not None or self.state in {"broken", "stopped"}
            )
        if self._worker is None:
            raise self._not_ready()
        return self._worker

    async def _watch(self, worker: WorkerProcess) -> None:
        while True:
            started = time.monotonic()
            await self._until_lost(worker)
            lived_s = time.monotonic() - started
            self._worker = None
            self.crashes = 1 if lived_s >= self._policy.healthy_s else self.crashes + 1
            await worker.stop(grace_s=0.2)
            _log.error(
                "replica.worker_lost",
                name=self._name,
                version=self.prepared.pinned_name,
                status=worker.process.returncode,
                crashes=self.crashes,
            )
            worker = await self._restart()

    async def _until_lost(self, worker: WorkerProcess) -> None:
        policy = self._policy
        while not worker.client.lost.is_set():
            try:
                async with asyncio.timeout(policy.ping_interval_s):
                    await worker.client.lost.wait()
            except TimeoutError:
                if not await worker.client.ping(policy.ping_timeout_s):
                    worker.kill()
                    await worker.client.lost.wait()

    async def _restart(self) -> WorkerProcess:
        draining = self.state in {"draining", "drained"}
        while True:
            if not draining:
                broken = self.crashes >= self._policy.breaker
                await self._become("broken" if broken else "restarting")
            await asyncio.sleep(self._backoff_s())
            try:
                worker = await self._launch()
            except LoadError as error:
                self.crashes += 1
                _log.error("replica.restart_failed", name=self._name, error=error.message)
                continue
            self._worker = worker
            await self._become(self.state if draining else "ready")
            _log.info("replica.restarted", name=self._name, pid=worker.pid)
            return worker

    def _backoff_s(self) -> float:
        if self.crashes >= self._policy.breaker:
            return self._policy.cooldown_s
        if self.crashes <= 1:
            return 0.0
        return float(self._policy.backoff_s * 2 ** (self.crashes - 2))

    async def _become(self, state: str) -> None:
        async with self._changed:
            self.state = state
            self._changed.notify_all()

    def _not_ready(self) -> NotReadyError:
        wait_s = self._policy.cooldown_s if self.state == "broken" else 1
        return NotReadyError(
            f"The worker of this version is {self.state}.",
            hint="It is started again by itself; the server's log says why it ended.",
            retry_after_s=wait_s,
        )
