"""Watch where aliases point and ask deployments to move there.

The looking happens in a child process (`follow_child`) that is killed when it says nothing for too
long and started again when it ends; whatever happens to it, what is served stays served.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import msgspec
import structlog

from serving.children import end_child, start_child
from serving.deployment import Deployment
from serving.follow_child import Sighting

_log = structlog.get_logger(__name__)

RESTART_FIRST_S = 1.0
RESTART_MOST_S = 30.0


class Follower:
    """Moves deployments to where their aliases point.

    Args:
        deployments: those whose reference names an alias.
        environment: of the child (W&B's address and key travel in it).
        interval_s: between two looks.
        silence_s: a child that says nothing for so long is killed.
    """

    def __init__(
        self,
        deployments: Sequence[Deployment],
        environment: Mapping[str, str],
        *,
        interval_s: float,
        silence_s: float = 90.0,
    ) -> None:
        self._deployments = deployments
        self._environment = environment
        self._interval_s = interval_s
        self._silence_s = silence_s + interval_s
        self._seen: dict[str, str] = {}
        self._lost: set[str] = set()

    async def run(self) -> None:
        """Follow until cancelled."""
        references = sorted({deployment.reference for deployment in self._deployments})
        if not references:
            return
        pause_s = RESTART_FIRST_S
        while True:
            heard = await self._follow_once(references)
            pause_s = RESTART_FIRST_S if heard else min(RESTART_MOST_S, 2 * pause_s)
            await asyncio.sleep(pause_s)

    async def _follow_once(self, references: Sequence[str]) -> int:
        """Start a child and listen until it ends or falls silent; returns how often it spoke."""
        arguments = ["--interval", str(self._interval_s), "--", *references]
        child = await start_child("serving.follow_child", arguments, self._environment)
        heard = 0
        try:
            while line := await self._next_line(child):
                self._take(msgspec.json.decode(line, type=Sighting))
                heard += 1
        except (TimeoutError, msgspec.MsgspecError, ValueError) as error:
            _log.warning("follow.child_unusable", error=type(error).__name__, pid=child.pid)
        finally:
            await end_child(child)
        return heard

    async def _next_line(self, child: asyncio.subprocess.Process) -> bytes:
        if child.stdout is None:
            return b""
        async with asyncio.timeout(self._silence_s):
            return await child.stdout.readline()

    def _take(self, sighting: Sighting) -> None:
        reference = sighting.reference
        if sighting.error:
            if reference not in self._lost:
                _log.warning("follow.cannot_look", reference=reference, error=sighting.error)
            self._lost.add(reference)
            return
        if reference in self._lost:
            _log.info("follow.looks_again", reference=reference)
            self._lost.discard(reference)
        if self._seen.get(reference) == sighting.pinned_name:
            return
        self._seen[reference] = sighting.pinned_name
        for deployment in self._deployments:
            if deployment.reference == reference:
                self._move(deployment, sighting.pinned_name)

    def _move(self, deployment: Deployment, pinned_name: str) -> None:
        version = deployment.version
        live = version is not None and version.pinned_name == pinned_name
        # A move that is under way, or that failed, must be called off when the
        # alias comes back to what is live.
        if live and deployment.wanted is None:
            return
        _log.info("follow.moved", deployment=deployment.name, to=pinned_name)
        deployment.want(pinned_name)
