"""Steady requests from several clients while something else happens."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType

import httpx


@dataclass
class Tally:
    """What the clients saw so far."""

    answered: int = 0
    failures: list[str] = field(default_factory=list)
    versions: Counter[str] = field(default_factory=Counter)


class Traffic:
    """A few clients that ask again and again until the block is left."""

    def __init__(self, url: str, texts: list[str], *, clients: int, pause_s: float) -> None:
        self._url = url
        self._texts = texts
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._ask, args=(index,), daemon=True)
            for index in range(clients)
        ]
        self.tally = Tally()

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, client_index: int) -> None:
        with httpx.Client(timeout=30) as client:
            turn = client_index
            while not self._stop.is_set():
                text = self._texts[turn % len(self._texts)]
                turn += 1
                self._note(*self._one(client, text))
                self._stop.wait(self._pause_s)

    def _one(self, client: httpx.Client, text: str) -> tuple[str | None, str | None]:
        """Return (version that answered, None) or (None, what went wrong)."""
        try:
            response = client.post(self._url, json={"inputs": text})
        except httpx.HTTPError as error:
            return None, repr(error)
        if response.status_code != 200:
            return None, f"{response.status_code} {response.text[:200]}"
        return response.headers["x-model-version"], None

    def _note(self, version: str | None, failure: str | None) -> None:
        with self._lock:
            if failure is not None or version is None:
                self.tally.failures.append(failure or "no version")
                return
            self.tally.answered += 1
            self.tally.versions[version] += 1
