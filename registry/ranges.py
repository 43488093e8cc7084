"""Reads one range of a file, over as many answers as it takes.

Knows how servers may answer a range request: with the range, with the whole
file, with another file. Does not know when to try again.
"""

from __future__ import annotations

from collections.abc import Callable

from registry.errors import IntegrityError
from registry.retry import Limits, Pace, Transient, check_status
from registry.versions import FileEntry
from registry.wire import Answer, Connections


class RangeReader:
    """One range [start, end) on its way in.

    Args:
        connections: of the thread that reads.
        buffer: of the thread that reads.
        entry: the file.
        start, end: the range.
        write: takes (offset, bytes).
        received: hears how many bytes were written.
        limits: the least pace.
    """

    def __init__(
        self,
        connections: Connections,
        buffer: memoryview,
        entry: FileEntry,
        start: int,
        end: int,
        *,
        write: Callable[[int, memoryview], None],
        received: Callable[[int], None],
        limits: Limits,
    ) -> None:
        self.offset = start
        self._end = end
        self._connections = connections
        self._buffer = buffer
        self._entry = entry
        self._write = write
        self._received = received
        self._limits = limits
        self._answer: Answer | None = None

    @property
    def complete(self) -> bool:
        """Whether the whole range is here."""
        return self.offset >= self._end

    def extend(self) -> None:
        """Read on to the end of the file: the server knows no ranges."""
        self._end = self._entry.size_bytes

    def open(self, url: str) -> bool:
        """Ask for what is missing of the range; return whether the answer is a range.

        Raises:
            Transient: the answer is of no use now; asking again may help.
            IntegrityError: the server's file has another size.
        """
        answer = self._connections.get(url, self.offset, self._end)
        check_status(answer, self._entry.path)
        if answer.total_bytes not in {None, self._entry.size_bytes}:
            raise IntegrityError(
                f"{self._entry.path!r} has {answer.total_bytes} bytes on the server, "
                f"{self._entry.size_bytes} in the manifest.",
                hint="The server's copy is damaged. Nothing was kept.",
            )
        if answer.status == 206 and answer.start != self.offset:
            raise Transient(f"bytes from {answer.start} instead of {self.offset}")
        self._answer = answer
        return answer.status == 206

    def read(self) -> None:
        """Write what comes, as far as it comes.

        Raises:
            Transient: the answer ended early or drips.
            OSError, http.client.HTTPException: the connection broke.
        """
        answer = self._answer
        if answer is None:
            raise ValueError("nothing was asked for")
        position = answer.start
        pace = Pace(self._limits)
        while not self.complete:
            count = answer.read_into(self._buffer)
            if not count:
                raise Transient("the answer ended early")
            # A server without ranges starts over: what is here is passed over.
            skip = min(max(self.offset - position, 0), count)
            keep = min(count, self._end - position)
            if keep > skip:
                self._write(self.offset, self._buffer[skip:keep])
                self.offset += keep - skip
                self._received(keep - skip)
            position += count
            pace.check(count)
        if not answer.exhausted:
            # What is left over would be taken for the next answer.
            self._connections.close()
