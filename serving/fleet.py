"""All deployments of a server: find one by name, start them together, stop them together."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Iterator, Sequence
from typing import Any

from serving.deployment import Deployment
from serving.errors import UnknownModelError


class Fleet:
    """The deployments of one server, by name.

    Args:
        deployments: each with a name of its own.
    """

    def __init__(self, deployments: Sequence[Deployment]) -> None:
        self._by_name = {deployment.name: deployment for deployment in deployments}

    def __iter__(self) -> Iterator[Deployment]:
        return iter(self._by_name.values())

    @property
    def ready(self) -> bool:
        """Whether every deployment answers requests now."""
        return all(deployment.ready for deployment in self)

    def get(self, name: str) -> Deployment:
        """Return the deployment called `name`.

        Raises:
            UnknownModelError: there is none; the hint names the nearest.
        """
        found = self._by_name.get(name)
        if found is None:
            near = difflib.get_close_matches(name[:128], self._by_name, n=1)
            known = ", ".join(sorted(self._by_name))
            raise UnknownModelError(
                f"No model is served as {name[:128]!r}.",
                hint=f"Did you mean {near[0]!r}?" if near else f"Served here: {known}.",
            )
        return found

    async def start(self) -> None:
        """Prepare and load all deployments at once.

        Raises:
            LoadError: the first that cannot be served; the others are left to `stop`.
        """
        async with asyncio.TaskGroup() as starting:
            for deployment in self:
                starting.create_task(deployment.start())

    async def stop(self) -> None:
        """Drain and end all deployments."""
        await asyncio.gather(*(deployment.stop() for deployment in self))

    def describe(self) -> list[dict[str, Any]]:
        """Return the state of every deployment, for `/models`."""
        return [deployment.describe() for deployment in self]
