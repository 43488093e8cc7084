"""One name under which versions are served: which is live, which is wanted, how one takes over.

The wanted version is prepared, loaded and warmed beside the live one; only then do requests go to
it. Requests that began with the old one end with it. A version that cannot be prepared or loaded
changes nothing but what `describe` says.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from registry import Lease
from serving.config import RestartPolicy
from serving.errors import LoadError, NotReadyError
from serving.prepare.plan import Prepared, PrepareError
from serving.replica import Replica
from serving.worker.messages import Outcome, PredictRequest, Tell
from serving.worker.process import WorkerProcess

_log = structlog.get_logger(__name__)

RETRY_FIRST_S = 2.0
RETRY_MOST_S = 60.0
EXIT_GRACE_S = 5.0

Prepare = Callable[[str], Awaitable[Prepared]]
"""Make a reference ready to load; raises PrepareError."""

Launch = Callable[[str, Prepared], Awaitable[WorkerProcess]]
"""Start a worker for a prepared version (first argument: a name for the log); raises LoadError."""

OnVersion = Callable[["Deployment", Prepared, str], None]
"""Told that a version of a deployment is `started` or `stopped`."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a deployment answered, and which version did."""

    outcomes: list[Outcome]
    version: Prepared


@dataclass(frozen=True, slots=True)
class SwapFailure:
    """Why the wanted version is not live.

    Attributes:
        reference: what was wanted.
        error, hint: why not.
        at: Unix time.
        transient: whether it is tried again by itself.
    """

    reference: str
    error: str
    hint: str
    at: float
    transient: bool


class Deployment:
    """A name, the version that answers under it, and the moves between versions.

    Args:
        name: under which clients ask.
        reference: what was asked for at the start; an alias in it may be followed.
        prepare, launch: how a version gets ready and how its worker starts.
        policy: for workers that die.
        drain_timeout_s: for requests inside an old version.
        on_version: told of versions that start and stop.
    """

    def __init__(
        self,
        name: str,
        reference: str,
        *,
        prepare: Prepare,
        launch: Launch,
        policy: RestartPolicy,
        drain_timeout_s: float,
        on_version: OnVersion | None = None,
    ) -> None:
        self.name = name
        self.reference = reference
        self.failure: SwapFailure | None = None
        self.swaps = 0
        # Of the deployment, not of its version: what a move brings in is pinned.
        self.followed = False
        self._prepare = prepare
        self._launch = launch
        self._policy = policy
        self._drain_timeout_s = drain_timeout_s
        self._on_version = on_version
        self._replica: Replica | None = None
        self._phase = "preparing"
        self._wanted: str | None = None
        self._wanting = asyncio.Event()
        self._moving: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def ready(self) -> bool:
        """Whether requests are answered now."""
        return self._replica is not None and self._replica.ready

    @property
    def state(self) -> str:
        """`preparing`, `loading`, `ready`, `restarting`, `broken` or `stopped`."""
        return self._phase if self._replica is None else self._replica.state

    @property
    def version(self) -> Prepared | None:
        """The live version, None before the first."""
        return self._replica.prepared if self._replica else None

    @property
    def wanted(self) -> str | None:
        """What was asked for and is not live (yet, or because it failed)."""
        return self._wanted

    @property
    def replica(self) -> Replica | None:
        """The live version's worker and its keeper."""
        return self._replica

    async def start(self) -> None:
        """Prepare and load the first version.

        Raises:
            LoadError: it cannot be served (PrepareError: it cannot be prepared).
        """
        prepared = await self._prepare(self.reference)
        self._phase = "loading"
        self._replica = await self._load(prepared)
        self._phase = "ready"
        self._moving = asyncio.create_task(self._move_forever())

    def want(self, reference: str) -> None:
        """Ask for the version that `reference` names; the latest wish wins. Returns at once."""
        self._wanted = reference
        self._wanting.set()

    async def predict(self, request: PredictRequest, tell: Tell | None = None) -> Reply:
        """Answer with the version that is live now; see `messages.Predictor`.

        With `tell` the answer is streamed, see `messages.Predict`; it ends with its version.
        """
        replica = self._replica
        if replica is None:
            raise NotReadyError(
                f"The deployment {self.name!r} is {self._phase}.",
                hint="GET /readyz answers 200 when it is ready.",
                retry_after_s=2,
            )
        return Reply(await replica.predict(request, tell), replica.prepared)

    async def stop(self) -> None:
        """Wait for the requests inside, then end all workers."""
        if self._moving is not None:
            self._moving.cancel()
            await asyncio.gather(self._moving, return_exceptions=True)
        replica, self._replica, self._phase = self._replica, None, "stopped"
        if replica is not None:
            await self._retire(replica)
        await asyncio.gather(*self._leaving, return_exceptions=True)

    def describe(self) -> dict[str, Any]:
        """Return the state as plain values, for `/models`."""
        version, replica = self.version, self._replica
        worker = replica.worker if replica else None
        facts: dict[str, Any] = {
            "name": self.name,
            "state": self.state,
            "reference": self.reference,
            "version": version.pinned_name if version else None,
            "digest": version.digest if version else None,
            "engine": version.engine if version else None,
            "precision": version.precision if version else None,
            "reason": version.reason if version else None,
            "task": version.task if version else None,
            "followed": self.followed,
            "known_at": version.known_at if version else None,
            "worker_pid": worker.pid if worker else None,
            "crashes": replica.crashes if replica else 0,
            "in_flight": replica.pending if replica else 0,
            "swaps": self.swaps,
            "wanted": self._wanted,
        }
        failure = self.failure
        facts["last_failure"] = (
            None
            if failure is None
            else {name: getattr(failure, name) for name in failure.__slots__}
        )
        return facts

    async def _load(self, prepared: Prepared) -> Replica:
        label = f"{self.name}={prepared.pinned_name}"

        async def launch() -> WorkerProcess:
            return await self._launch(label, prepared)

        replica = Replica(label, prepared, launch, self._policy)
        try:
            await replica.start()
        except BaseException:
            _let_go(prepared)
            raise
        self._tell(replica.prepared, "started")
        _log.info(
            "deployment.loaded",
            deployment=self.name,
            version=prepared.pinned_name,
            engine=prepared.engine,
            reason=prepared.reason,
            known_at=prepared.known_at,
        )
        return replica

    async def _move_forever(self) -> None:
        retry_s = RETRY_FIRST_S
        while True:
            await self._wanting.wait()
            self._wanting.clear()
            wanted = self._wanted
            if wanted is None:
                continue
            if await self._move(wanted):
                retry_s = RETRY_FIRST_S
                if self._wanted == wanted:
                    self._wanted = None
            elif self.failure is not None and self.failure.transient:
                await self._pause(retry_s)
                retry_s = min(RETRY_MOST_S, 2 * retry_s)

    async def _pause(self, seconds: float) -> None:
        """Wait until it is worth trying again: after a while, or when something else is wanted."""
        try:
            async with asyncio.timeout(seconds):
                await self._wanting.wait()
        except TimeoutError:
            self._wanting.set()

    async def _move(self, reference: str) -> bool:
        """Swap to `reference`; False when it cannot be served and the old version stays."""
        try:
            prepared = await self._prepare(reference)
            live = self.version
            if live is not None and live.pinned_name == prepared.pinned_name:
                self.failure = None
                _let_go(prepared)
                return True
            replica = await self._load(prepared)
        except Exception as error:
            self._note_failure(reference, error)
            return False
        old, self._replica = self._replica, replica
        self.swaps += 1
        self.failure = None
        _log.info(
            "deployment.swapped",
            deployment=self.name,
            old=old.prepared.pinned_name if old else None,
            new=prepared.pinned_name,
        )
        if old is not None:
            leaving = asyncio.create_task(self._retire(old))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
        return True

    def _note_failure(self, reference: str, error: Exception) -> None:
        known = isinstance(error, LoadError)
        self.failure = SwapFailure(
            reference=reference,
            error=str(error) if known else "An internal error; see the server's log.",
            hint=getattr(error, "hint", ""),
            at=time.time(),
            transient=isinstance(error, PrepareError) and error.transient,
        )
        _log.error(
            "deployment.swap_failed",
            deployment=self.name,
            reference=reference,
            error=str(error),
            stays=self.version.pinned_name if self.version else None,
            exc_info=None if known else error,
        )

    async def _retire(self, replica: Replica) -> None:
        await replica.drain(self._drain_timeout_s)
        await replica.stop(EXIT_GRACE_S)
        _let_go(replica.prepared)
        self._tell(replica.prepared, "stopped")

    def refresh_leases(self) -> None:
        """Say, for other machines that share the cache, that what is served is still needed."""
        if self.version is not None and self.version.lease:
            Lease(Path(self.version.lease)).refresh()

    def _tell(self, prepared: Prepared, what: str) -> None:
        if self._on_version is not None:
            self._on_version(self, prepared, what)


def _let_go(prepared: Prepared) -> None:
    """Allow the version to be pruned; another one with the same bytes has its own lease."""
    if prepared.lease:
        Lease(Path(prepared.lease)).release()
