"""Claims: who needs what in the cache right now, so that pruning leaves it alone.

    leases/use.<snapshot>.<owner>.<n>    a running server holds this snapshot and its exports
    leases/pull.<owner>.<n>              a pull is about to commit files of the sizes listed inside
    leases/prune.<owner>.<n>             a prune is choosing what to remove, now

A claim ends with its owner (see `registry.store.owners`), so `kill -9` releases it.

No lock is needed, and network file systems without locks do as well: a claimant
writes its claim and then looks for a prune; a prune writes its own and then
looks for claims. One of the two sees the other. The claimant waits until the
prune has ended and looks again at what it wanted; the prune keeps what is claimed.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from registry.errors import UnavailableError
from registry.store.durable import make_folder, storage_errors
from registry.store.layout import Layout
from registry.store.owners import is_gone, owner_mark

PRUNE_WAIT_S = 60.0
"""How long to wait for a prune that is choosing; it takes milliseconds."""

REFRESH_S = 600.0
"""How often a living owner touches its claim, for other machines to see."""

_LOOK_AGAIN_S = 0.01
_counter = itertools.count()


@dataclass(frozen=True, slots=True)
class Lease:
    """A server's hold on a snapshot and its exports; a context manager that lets go at its end.

    Attributes:
        path: the file that says so. Its name is enough to let go from another process.
    """

    path: Path

    def refresh(self) -> None:
        """Say that the holder is alive; other machines ask for it once an hour or more often."""
        with suppress(OSError):
            os.utime(self.path)

    def release(self) -> None:
        """Let go; safe to call again."""
        with suppress(OSError):
            self.path.unlink()

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Claims:
    """The claims of one cache.

    Args:
        layout: where the cache lies.
    """

    def __init__(self, layout: Layout) -> None:
        self._folder = layout.leases
        self._layout = layout

    def hold(self, snapshot: str, *, pid: int | None = None) -> Lease | None:
        """Keep a snapshot and its exports from being pruned.

        Args:
            snapshot: its digest.
            pid: the process that the lease ends with; default: this one.

        Returns:
            None when the snapshot is not there (any more): pull it again.

        Raises:
            UnavailableError: a prune does not end.
            StorageError: the cache cannot be written.
        """
        lease = Lease(self._write(f"use.{snapshot}", b"", pid))
        try:
            self._wait_for_prune()
            if self._layout.snapshot(snapshot).is_dir():
                return lease
        except BaseException:
            lease.release()
            raise
        lease.release()
        return None

    @contextmanager
    def pulling(self, sizes_bytes: Iterable[int]) -> Iterator[None]:
        """Keep blobs and snapshots of these file sizes while the block looks for and makes them.

        Raises:
            UnavailableError: a prune does not end.
            StorageError: the cache cannot be written.
        """
        claim = Lease(self._write("pull", msgspec.json.encode(sorted(set(sizes_bytes))), None))
        ended = threading.Event()
        refreshing = threading.Thread(target=_refresh, args=(claim, ended), daemon=True)
        try:
            self._wait_for_prune()
            refreshing.start()
            yield
        finally:
            ended.set()
            claim.release()

    @contextmanager
    def pruning(self) -> Iterator[None]:
        """Have claimants wait while the block chooses and moves away what goes."""
        path = self._write("prune", b"", None)
        try:
            yield
        finally:
            with suppress(OSError):
                path.unlink()

    def held(self) -> set[str]:
        """Return the snapshots that live servers hold."""
        return {path.name.split(".")[1] for path in self._live("use")}

    def sizes_bytes(self) -> set[int] | None:
        """Return the sizes of files that live pulls are about to commit; None means all."""
        sizes: set[int] = set()
        for path in self._live("pull"):
            try:
                sizes.update(msgspec.json.decode(path.read_bytes(), type=list[int]))
            except FileNotFoundError:
                continue  # It has just ended.
            except (OSError, msgspec.DecodeError):
                return None
        return sizes

    def pulls(self) -> bool:
        """Whether any live pull is under way."""
        return any(True for _ in self._live("pull"))

    def dead(self) -> list[Path]:
        """Return the claims whose owners have ended."""
        return [path for path in self._all() if _is_dead(path)]

    def _write(self, kind: str, content: bytes, pid: int | None) -> Path:
        path = self._folder / f"{kind}.{owner_mark(pid)}.{next(_counter)}"
        hidden = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with storage_errors("claim a part of the cache"):
            make_folder(self._folder)
            # A claim must never be seen half written: it would claim less.
            hidden.write_bytes(content)
            os.rename(hidden, path)
        return path

    def _wait_for_prune(self) -> None:
        deadline_s = time.monotonic() + PRUNE_WAIT_S
        while any(True for _ in self._live("prune")):
            if time.monotonic() > deadline_s:
                raise UnavailableError(
                    "The cache has been pruned for a long time by another process.",
                    hint="Is a `registry cache prune` stopped? End it, or let it go on.",
                )
            time.sleep(_LOOK_AGAIN_S)

    def _live(self, kind: str) -> Iterator[Path]:
        return (path for path in self._all(kind) if not _is_dead(path))

    def _all(self, kind: str | None = None) -> list[Path]:
        with storage_errors("read the claims on the cache"):
            if not self._folder.is_dir():
                return []
            names = sorted(os.listdir(self._folder))
        known = (kind,) if kind else ("use", "pull", "prune")
        return [self._folder / name for name in names if name.split(".")[0] in known]


def _refresh(claim: Lease, ended: threading.Event) -> None:
    while not ended.wait(REFRESH_S):
        claim.refresh()


def _is_dead(path: Path) -> bool:
    mark = ".".join(path.name.split(".")[-4:-1])
    try:
        return is_gone(mark, path.stat().st_mtime)
    except FileNotFoundError:
        return True
    except OSError:
        return False
