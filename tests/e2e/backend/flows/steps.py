"""What flow scripts share: steps with their times, waiting, expecting refusals."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


def eventually(what: str, check: Callable[[], T], timeout_s: float = 30.0) -> T:
    """Poll until `check` gives something true, and return that."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = check()
        if value:
            return value
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.05)


@contextmanager
def refused(*kinds: type[BaseException]) -> Iterator[None]:
    """Fail unless the block raises one of `kinds`."""
    try:
        yield
    except kinds:
        return
    raise AssertionError("was not refused")


def run_steps(steps: list[Callable[[], object]]) -> None:
    """Run the steps in order; tell the seconds of each, for the reader of a failure."""
    for step in steps:
        start = time.monotonic()
        step()
        sys.stdout.write(f"{step.__name__} {time.monotonic() - start:.2f}\n")
        sys.stdout.flush()
