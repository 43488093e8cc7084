"""Make room: remove rubbish, old left-overs and, over a budget, what was not used for longest.

What a server holds, what is pinned and what a pull is about to commit stays. Choosing
is pure; removing is a few renames into `trash/`, in an order that leaves a valid
cache wherever it is cut: first the records, so that nothing points at what goes.
"""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from registry.store.census import Census, Entry, Leftover, take_census
from registry.store.claims import Claims
from registry.store.durable import make_folder, storage_errors
from registry.store.layout import Layout
from registry.store.locks import single_flight
from registry.store.marks import Marks
from registry.store.owners import owner_mark

LEFTOVER_AGE_S = 24 * 3600.0
"""How long what an interrupted pull left is kept for the next one."""

_LOCK_TIMEOUT_S = 60.0
_counter = itertools.count()


@dataclass(frozen=True, slots=True)
class Budget:
    """What a prune aims at.

    Attributes:
        max_bytes: size of the cache afterwards; None evicts no entry.
        leftover_age_s: left-overs older than this go in any case.
    """

    max_bytes: int | None = None
    leftover_age_s: float = LEFTOVER_AGE_S


@dataclass(frozen=True, slots=True)
class Removal:
    """One thing that a prune removes.

    Attributes:
        kind: `version`, or a left-over's kind.
        name: for people.
        size_bytes: what its removal frees.
        last_used_s: Unix time.
    """

    kind: str
    name: str
    size_bytes: int
    last_used_s: float


@dataclass(frozen=True, slots=True)
class Kept:
    """An entry that would have gone, and why it stays: `pinned`, `in use` or `being pulled`."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Choice:
    """What a prune removes; pure values.

    Attributes:
        entries, blobs, leftovers: what goes; blobs by SHA-256.
        removals: the same, for people.
        kept: what was passed over.
        before_bytes, after_bytes: size of the cache.
    """

    entries: tuple[Entry, ...]
    blobs: tuple[str, ...]
    leftovers: tuple[Leftover, ...]
    removals: tuple[Removal, ...]
    kept: tuple[Kept, ...]
    before_bytes: int
    after_bytes: int


def choose(
    census: Census, claimed_sizes_bytes: set[int] | None, budget: Budget, now_s: float
) -> Choice:
    """Choose what goes; pure.

    Args:
        census: what there is.
        claimed_sizes_bytes: sizes of files that pulls are about to commit; None claims all.
        budget: what to aim at.
        now_s: Unix time.
    """
    return _Choosing(census, claimed_sizes_bytes, budget, now_s).run()


class _Choosing:
    def __init__(
        self, census: Census, claimed: set[int] | None, budget: Budget, now_s: float
    ) -> None:
        self._census = census
        self._claimed = claimed
        self._budget = budget
        self._now_s = now_s
        self._uses = Counter(key for entry in census.entries for key in entry.contents)
        self._left_bytes = census.total_bytes
        self._entries: list[Entry] = []
        self._blobs: list[str] = []
        self._leftovers: list[Leftover] = []
        self._removals: list[Removal] = []
        self._kept: list[Kept] = []

    def run(self) -> Choice:
        for item in self._census.rubbish:
            self._drop(item)
        candidates: list[Entry | Leftover] = [*self._census.entries]
        for item in self._census.leftovers:
            if self._now_s - item.last_used_s >= self._budget.leftover_age_s:
                self._drop(item)
            else:
                candidates.append(item)
        for candidate in sorted(candidates, key=lambda one: one.last_used_s):
            if self._budget.max_bytes is None or self._left_bytes <= self._budget.max_bytes:
                break
            if isinstance(candidate, Leftover):
                self._drop(candidate)
            else:
                self._consider(candidate)
        return Choice(
            tuple(self._entries),
            tuple(self._blobs),
            tuple(self._leftovers),
            tuple(self._removals),
            tuple(self._kept),
            self._census.total_bytes,
            self._left_bytes,
        )

    def _drop(self, item: Leftover) -> None:
        # A blob of no entry may be what a pull has just fetched.
        if item.kind == "blob" and self._is_claimed(item.size_bytes):
            return
        self._leftovers.append(item)
        self._left_bytes -= item.size_bytes
        self._removals.append(Removal(item.kind, item.path.name, item.size_bytes, item.last_used_s))

    def _consider(self, entry: Entry) -> None:
        reason = self._reason_to_keep(entry)
        if reason is not None:
            self._kept.append(Kept(entry.title, reason))
            return
        freed_bytes = entry.exports_bytes
        for key, size_bytes in entry.contents.items():
            self._uses[key] -= 1
            if self._uses[key] > 0:
                continue
            if key not in self._census.blobs:
                freed_bytes += size_bytes
            elif not self._is_claimed(size_bytes):
                self._blobs.append(key)
                freed_bytes += size_bytes
        self._entries.append(entry)
        self._left_bytes -= freed_bytes
        self._removals.append(Removal("version", entry.title, freed_bytes, entry.last_used_s))

    def _reason_to_keep(self, entry: Entry) -> str | None:
        if entry.held:
            return "in use"
        if entry.pinned:
            return "pinned"
        # A pull may be about to commit a version of just these bytes.
        sizes = entry.contents.values()
        if sizes and all(self._is_claimed(size_bytes) for size_bytes in sizes):
            return "being pulled"
        return None

    def _is_claimed(self, size_bytes: int) -> bool:
        return self._claimed is None or size_bytes in self._claimed


def look(layout: Layout, claims: Claims, marks: Marks, budget: Budget) -> Choice:
    """Return what `prune` would remove now; removes nothing.

    Raises:
        StorageError: the cache cannot be read.
    """
    # Claims first: a pull that ends in between has committed what the census then sees.
    claimed = claims.sizes_bytes()
    return choose(take_census(layout, claims, marks), claimed, budget, time.time())


def prune(layout: Layout, claims: Claims, marks: Marks, budget: Budget) -> Choice:
    """Remove what the budget asks for; returns what went.

    Raises:
        StorageError: the cache cannot be read or written; what stays is valid.
    """
    with single_flight(layout.locks / "prune.lock", timeout_s=_LOCK_TIMEOUT_S):
        with _trash_folder(layout) as trash, claims.pruning():
            choice = look(layout, claims, marks, budget)
            _move_away(layout, marks, choice, trash)
        _drop_notes(layout, set(choice.blobs) | {item.path.name for item in choice.leftovers})
    return choice


@contextmanager
def _trash_folder(layout: Layout) -> Iterator[Path]:
    # Named by its owner, so that the next prune deletes it if this one is killed.
    path = layout.trash / f"{owner_mark()}.{next(_counter)}"
    with storage_errors("make room in the cache"):
        make_folder(path)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _move_away(layout: Layout, marks: Marks, choice: Choice, trash: Path) -> None:
    with storage_errors("remove from the cache"):
        for entry in choice.entries:
            for record in entry.records:
                record.unlink(missing_ok=True)
            _rename(layout.snapshot(entry.digest), trash)
            for export in entry.exports:
                _rename(export, trash)
            layout.conversion(entry.digest).unlink(missing_ok=True)
            marks.forget(entry.digest)
        for sha256 in choice.blobs:
            _rename(layout.blob(sha256), trash)
        for item in choice.leftovers:
            _rename(item.path, trash)


def _rename(path: Path, trash: Path) -> None:
    # Gone already: another process was first, or a pull has claimed the partial file.
    with suppress(FileNotFoundError):
        os.rename(path, trash / f"{next(_counter)}.{path.name[:100]}")


def _drop_notes(layout: Layout, gone: set[str]) -> None:
    """Remove the notes that name blobs which went; one that stays only costs its bytes."""
    for note in (layout.root / "digests").rglob("*"):
        with suppress(OSError, UnicodeDecodeError):
            if note.is_file() and note.read_text("ascii") in gone:
                note.unlink()


def sizes(census: Census) -> Mapping[str, int]:
    """Return what the cache is made of, in bytes."""
    return {
        "total_bytes": census.total_bytes,
        "versions_bytes": census.versions_bytes,
        "exports_bytes": census.exports_bytes,
        "leftovers_bytes": census.leftovers_bytes,
    }
