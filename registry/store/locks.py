"""Locks between processes: they save work, they do not keep truth.

Where they do nothing (some network file systems) two pulls may both download;
each writes to a file of its own and both commit the same bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from registry.store.durable import make_folder

_log = logging.getLogger(__name__)


@contextmanager
def single_flight(path: Path, *, timeout_s: float) -> Iterator[bool]:
    """Hold the lock while the block runs, or go on without it.

    Args:
        path: the lock file; the kernel releases it when its holder dies.
        timeout_s: how long to wait for the present holder.

    Yields:
        Whether the lock is held.
    """
    import filelock  # Here: a warm pull takes no lock, and the import costs as much as the pull.

    make_folder(path.parent)
    lock = filelock.FileLock(path, timeout=timeout_s)
    try:
        lock.acquire()
        held = True
    except filelock.Timeout:
        _log.warning("gave up waiting for %s after %.0f s; going on without it", path, timeout_s)
        held = False
    except (OSError, NotImplementedError) as error:
        _log.warning("cannot lock %s (%s); going on without it", path, error)
        held = False
    try:
        yield held
    finally:
        if held:
            lock.release()
