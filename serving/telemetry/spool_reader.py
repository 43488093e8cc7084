"""The reading end of the spool: entries in order, from the acknowledged one on.

Works beside a writer in another process, and never changes a segment. A torn
or damaged tail is left out: for good once a newer segment exists, otherwise
until the writer has mended it.
"""

from __future__ import annotations

from pathlib import Path

from serving.telemetry import frames, lane
from serving.telemetry.frames import Entry


class SpoolReader:
    """Reads a lane's entries once each, beginning behind the acknowledged one.

    Attributes:
        missing: entries that were lost to the cap or to damage while this reader read.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._acknowledged = lane.read_acknowledged(directory)
        self._next_sequence = self._acknowledged + 1
        self._offsets: tuple[int, int] = (0, 0)
        self.missing = 0

    @property
    def acknowledged(self) -> int:
        """Everything up to this sequence is stored by W&B."""
        return self._acknowledged

    @property
    def position(self) -> int:
        """Sequence of the last entry read (or acknowledged before)."""
        return self._next_sequence - 1

    def read(self, limit: int) -> list[Entry]:
        """Return up to `limit` further entries; empty when there are none yet.

        Raises:
            OSError: the disk refuses.
        """
        # The list comes first: a segment with a successor in it is finished, so
        # what is read of it afterwards is all of it.
        found = lane.segments(self._directory)
        taken: list[Entry] = []
        for position, (first, path) in enumerate(found):
            newest = position + 1 == len(found)
            if not newest and found[position + 1][0] <= self._next_sequence:
                continue
            taken.extend(self._read_segment(first, path, limit - len(taken)))
            if len(taken) >= limit:
                break
        return taken

    def _read_segment(self, first: int, path: Path, limit: int) -> list[Entry]:
        known_first, offset = self._offsets
        if known_first != first:
            offset = 0
        try:
            with path.open("rb") as file:
                file.seek(offset)
                data = file.read()
        except FileNotFoundError:
            # The writer's cap took it between our listing and our reading; the
            # gap is counted at the next entry.
            return []
        entries, _ = frames.decode(data)
        taken: list[Entry] = []
        for entry in entries:
            if len(taken) == limit:
                break
            offset += frames.HEADER_BYTES + len(entry.payload)
            if entry.sequence >= self._next_sequence:
                self.missing += entry.sequence - self._next_sequence
                self._next_sequence = entry.sequence + 1
                taken.append(entry)
        self._offsets = (first, offset)
        return taken

    def acknowledge(self, sequence: int) -> None:
        """Remember durably that W&B has everything up to `sequence`.

        Raises:
            OSError: the disk refuses; the reader goes on, and asks W&B after a restart.
        """
        if sequence > self._acknowledged:
            lane.write_acknowledged(self._directory, sequence)
            self._acknowledged = sequence
