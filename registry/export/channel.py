"""How the exporting child speaks to its parent: JSON lines on stdout, and its life on stdin."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TypeAlias

import msgspec

from registry.export.messages import FromChild

Emit: TypeAlias = Callable[[FromChild], None]


@contextlib.contextmanager
def claimed_stdout() -> Iterator[Emit]:
    """Give a function that sends a message; meanwhile all that anybody prints goes to stderr."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)

    def emit(message: FromChild) -> None:
        line = msgspec.json.encode(message) + b"\n"
        while line:
            line = line[os.write(kept, line) :]

    try:
        yield emit
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def die_with_parent() -> None:
    """End this process as soon as stdin ends: then its parent is gone."""

    def wait() -> None:
        # Not through sys.stdin, whose lock the interpreter wants when it ends.
        while os.read(0, 1024):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
