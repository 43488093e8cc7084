"""Relay-style pages over ordered results; a cursor is the offset of its item."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass

MAX_PAGE = 10_000
MAX_OFFSET = 2**53


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a result was asked for.

    Attributes:
        offset: number of items to skip.
        limit: most items to return.
    """

    offset: int
    limit: int

    @classmethod
    def of(cls, first: int | None, after: str | None, default: int = 50) -> Page:
        """Return the page of `first` items after cursor `after`."""
        limit = default if first is None else max(0, min(int(first), MAX_PAGE))
        return cls(_offset(after), limit)

    def cut(self, items: Sequence[object], **extra: object) -> dict[str, object]:
        """Return the connection for a result that is held whole."""
        window = items[self.offset : self.offset + self.limit]
        return self.connection(window, total=len(items), **extra)

    def connection(
        self, window: Sequence[object], *, total: int, **extra: object
    ) -> dict[str, object]:
        """Return the connection for the items of this page out of `total`.

        `extra` adds or replaces fields of the connection.
        """
        edges = [
            {"node": item, "cursor": _cursor(self.offset + index + 1)}
            for index, item in enumerate(window)
        ]
        end = self.offset + len(edges)
        page_info = {
            "__typename": "PageInfo",
            "endCursor": _cursor(end) if edges else None,
            "hasNextPage": end < total,
            "startCursor": _cursor(self.offset + 1) if edges else None,
            "hasPreviousPage": self.offset > 0,
        }
        return {"edges": edges, "pageInfo": page_info, "totalCount": total, **extra}


def _cursor(position: int) -> str:
    return base64.b64encode(f"at:{position}".encode()).decode("ascii")


def _offset(cursor: str | None) -> int:
    try:
        text = base64.b64decode(cursor or "", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return 0
    number = text.removeprefix("at:")
    return min(int(number), MAX_OFFSET) if number.isascii() and number.isdigit() else 0
