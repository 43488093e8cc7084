"""Parallel, resumable, verified download.

    file ─► ranges ─► worker threads ─► partial file ─► followers hash it as it grows
                                              └─ digest right ─► accept (a blob)
                                              └─ digest wrong ─► fetched again, then refused

Owns time and order: retries, renewed addresses, deadlines. Does not know what
an artifact is; addresses and the place for finished files are passed in.
Memory stays flat: one buffer per thread, whatever the size of the files.
"""

from __future__ import annotations

import hashlib
import http.client
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

import xxhash

from registry.errors import IntegrityError
from registry.ranges import RangeReader
from registry.retry import Limits, Patience, Transient
from registry.store.ingest import BLOCK_BYTES, Hasher, Ingest, Partial
from registry.versions import Digest, FileEntry
from registry.width import WINDOW_S, Width
from registry.wire import Connections

_BUFFER_BYTES = 256 * 1024
_HASH_WORKERS = 4
_TRIES_PER_FILE = 3

Accept = Callable[[FileEntry, Partial, str], None]
"""Takes a complete, verified file and its SHA-256."""

Addresses = Callable[[Sequence[str]], Mapping[str, str]]
"""Asks the server for path -> URL; called again when URLs have expired."""


class Progress(Protocol):
    """Hears how a download goes; called from several threads."""

    def started(self, name: str, total_bytes: int) -> None:
        """A download of so many bytes begins."""

    def advanced(self, count_bytes: int) -> None:
        """So many more bytes are here; negative when they have to be fetched again."""

    def finished(self) -> None:
        """The download ended, well or not."""


class Silent:
    """A `Progress` that tells nobody."""

    def started(self, name: str, total_bytes: int) -> None:
        """Say nothing."""

    def advanced(self, count_bytes: int) -> None:
        """Say nothing."""

    def finished(self) -> None:
        """Say nothing."""


class Book:
    """The addresses of files, asked for in one go and again when they expire.

    Args:
        ask: asks the server.
        paths: all files of the download.
    """

    def __init__(self, ask: Addresses, paths: Sequence[str]) -> None:
        self._ask = ask
        self._paths = list(paths)
        self._known: dict[str, str] = {}
        self._lock = threading.Lock()

    def url(self, path: str) -> str:
        """Return the address of a file."""
        with self._lock:
            if not self._known:
                self._known = dict(self._ask(self._paths))
            return self._known[path]

    def renew(self, path: str, expired: str) -> None:
        """Ask for new addresses, unless another thread has done so already."""
        with self._lock:
            if self._known.get(path) == expired:
                self._known.clear()


@dataclass(slots=True, eq=False)
class _Job:
    """One file on its way in."""

    entry: FileEntry
    digest: Digest
    partial: Partial
    open_ranges: int = 0
    followers: tuple[Future[str], ...] = ()
    tries: int = 1
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True, slots=True)
class _Range:
    job: _Job
    start: int
    end: int
    rest: tuple[tuple[int, int], ...] = ()
    """Ranges of the same file that nobody was asked to fetch yet."""


class _Stopped(Exception):  # noqa: N818 - a signal between our own threads, not an error
    """Another thread failed, or the user interrupted."""


class Transfer:
    """One download of several files.

    Args:
        book: where the files lie.
        ingest: where partial files live.
        accept: takes each finished file.
        progress: hears of bytes.
        limits: waits, retries and parallelism.
    """

    def __init__(
        self, book: Book, ingest: Ingest, accept: Accept, progress: Progress, limits: Limits
    ) -> None:
        self._book = book
        self._ingest = ingest
        self._accept = accept
        self._progress = progress
        self._limits = limits
        self._stop = threading.Event()
        self._tasks: deque[FileEntry | _Range] = deque()
        self._changed = threading.Condition()
        self._outstanding = 0
        self._width = Width(limits.connections)
        self._error: BaseException | None = None
        self._active: set[_Job] = set()
        self._connections: list[Connections] = []
        self._hashing: ThreadPoolExecutor | None = None
        self.fetched_bytes = 0

    def run(self, entries: Sequence[FileEntry]) -> None:
        """Fetch all files, or raise and leave what arrived for the next time.

        Raises:
            IntegrityError: bytes stay wrong after being fetched again.
            UnavailableError: the server or the disk does not deliver.
        """
        # The largest first: their hashing takes longest, and the small ones, which mostly wait
        # for the disk, fit in beside it.
        entries = sorted(entries, key=lambda entry: entry.size_bytes, reverse=True)
        self._tasks.extend(entries)
        self._outstanding = len(entries)
        count = min(self._limits.connections, max(1, sum(map(self._parts, entries))))
        with ThreadPoolExecutor(_HASH_WORKERS, thread_name_prefix="hash") as self._hashing:
            threads = [threading.Thread(target=self._work, name=f"fetch-{i}") for i in range(count)]
            for thread in threads:
                thread.start()
            try:
                with self._changed:
                    self._changed.wait_for(lambda: not self._outstanding or self._stop.is_set())
            except BaseException as error:
                self._give_up(error)
                raise
            finally:
                for thread in threads:
                    thread.join()
                self._release()
        if self._error is not None:
            raise self._error

    def _parts(self, entry: FileEntry) -> int:
        return 1 + entry.size_bytes // self._limits.range_bytes

    def _work(self) -> None:
        limits = self._limits
        buffer = memoryview(bytearray(_BUFFER_BYTES))
        with Connections(
            connect_timeout_s=limits.connect_timeout_s, read_timeout_s=limits.read_timeout_s
        ) as connections:
            with self._changed:
                self._connections.append(connections)
            while (task := self._take()) is not None:
                try:
                    if isinstance(task, FileEntry):
                        self._begin(task)
                    else:
                        self._fetch(connections, buffer, task)
                except _Stopped:
                    return
                # Whatever it is, the other threads must stop and the caller must hear of it.
                except BaseException as error:
                    self._give_up(error)
                    return
                self._done()

    def _take(self) -> FileEntry | _Range | None:
        with self._changed:
            while not self._may_go_on():
                # Not for ever: whether more may fetch is also a question of time.
                self._changed.wait(WINDOW_S if self._tasks else None)
            if not self._tasks or self._stop.is_set():
                return None
            task = self._tasks.popleft()
            if isinstance(task, _Range):
                self._width.enter()
            return task

    def _may_go_on(self) -> bool:
        if self._stop.is_set() or not self._outstanding:
            return True
        first = self._tasks[0] if self._tasks else None
        return isinstance(first, FileEntry) or (first is not None and self._width.is_open)

    def _put(self, ranges: Sequence[_Range]) -> None:
        # In front: a file that has begun is finished before another begins, so
        # that few files are open at a time.
        with self._changed:
            self._outstanding += len(ranges)
            self._tasks.extendleft(reversed(ranges))
            self._changed.notify_all()

    def _done(self) -> None:
        with self._changed:
            self._outstanding -= 1
            self._changed.notify_all()

    def _give_up(self, error: BaseException) -> None:
        with self._changed:
            if self._error is None:
                self._error = error
            self._stop.set()
            active, connections = list(self._active), list(self._connections)
            self._changed.notify_all()
        for job in active:
            job.partial.fail(_Stopped())
        for each in connections:
            each.interrupt()

    def _release(self) -> None:
        # The workers have ended. Followers read the files that are about to be closed.
        for job in self._active:
            job.partial.fail(_Stopped())
            for follower in job.followers:
                follower.exception()
            self._ingest.release(job.partial)
        self._active.clear()

    def _begin(self, entry: FileEntry) -> None:
        if entry.digest is None:
            raise IntegrityError(
                f"{entry.path!r} has no digest to be checked against.", hint="Log it again."
            )
        job = _Job(entry, entry.digest, self._ingest.open(entry.digest, entry.size_bytes))
        with self._changed:
            self._active.add(job)
        self._progress.advanced(job.partial.kept_bytes)
        self._plan(job)

    def _plan(self, job: _Job) -> None:
        partial = job.partial
        ranges = partial.missing(self._limits.range_bytes)
        if job.entry.size_bytes > BLOCK_BYTES and self._hashing is not None:
            # The manifest's digest and SHA-256 each follow on a thread of their
            # own: one after the other they would be slower than the wire.
            job.followers = tuple(
                self._hashing.submit(_follow, partial, algorithm)
                for algorithm in (job.digest.algorithm, "sha256")
            )
        if not ranges:
            self._finish(job)
            return
        (start, end), *rest = ranges
        job.open_ranges = 1
        # Only when the server answers the first range with a range are the
        # others asked for; a server without ranges sends the file once.
        self._put([_Range(job, start, end, tuple(rest))])

    def _fetch(self, connections: Connections, buffer: memoryview, task: _Range) -> None:
        job, path = task.job, task.job.entry.path
        reader = RangeReader(
            connections,
            buffer,
            job.entry,
            task.start,
            task.end,
            write=job.partial.write,
            received=self._received,
            limits=self._limits,
        )
        patience = Patience(self._limits, self._stop)
        rest = task.rest
        while not reader.complete:
            url, before = self._book.url(path), reader.offset
            try:
                ranged = reader.open(url)
                if rest:
                    if ranged:
                        self._spread(job, rest)
                    else:
                        reader.extend()
                    rest = ()
                reader.read()
            except (Transient, OSError, http.client.HTTPException) as error:
                connections.drop(urlsplit(url))
                if self._stop.is_set():
                    raise _Stopped from None
                if reader.offset - before >= BLOCK_BYTES:
                    patience.refresh()
                if isinstance(error, Transient) and error.expired:
                    self._book.renew(path, url)
                patience.wait(error, f"{path!r} from {urlsplit(url).netloc}")
        with self._changed:
            self._width.leave()
            self._changed.notify_all()
        with job.lock:
            job.open_ranges -= 1
            last = job.open_ranges == 0
        if last:
            self._finish(job)

    def _spread(self, job: _Job, rest: Sequence[tuple[int, int]]) -> None:
        with job.lock:
            job.open_ranges += len(rest)
        self._put([_Range(job, start, end) for start, end in rest])

    def _received(self, count_bytes: int) -> None:
        with self._changed:
            self.fetched_bytes += count_bytes
            self._width.count(count_bytes)
        self._progress.advanced(count_bytes)
        if self._stop.is_set():
            raise _Stopped

    def _finish(self, job: _Job) -> None:
        if job.followers:
            job.partial.flush()
            found, sha256 = (follower.result() for follower in job.followers)
        else:
            found = _follow(job.partial, job.digest.algorithm)
            sha256 = _follow(job.partial, "sha256")
        if found != job.digest.hex:
            self._refuse(job, found)
            return
        self._accept(job.entry, job.partial, sha256)
        with self._changed:
            self._active.discard(job)

    def _refuse(self, job: _Job, found: str) -> None:
        if job.tries >= _TRIES_PER_FILE:
            with self._changed:
                self._active.discard(job)
            self._ingest.discard(job.partial)
            raise IntegrityError(
                f"{job.entry.path!r} arrived {job.tries} times with the wrong digest: "
                f"{job.digest.algorithm}:{found} instead of {job.digest}.",
                hint="The server's copy, or the network between, is damaged. Nothing was kept.",
            )
        job.tries += 1
        job.followers = ()
        job.partial.restart()
        self._progress.advanced(-job.entry.size_bytes)
        self._plan(job)


def _follow(partial: Partial, algorithm: str) -> str:
    hasher: Hasher = xxhash.xxh128() if algorithm == "xxh128" else hashlib.new(algorithm)
    partial.feed(hasher)
    return hasher.hexdigest()
