"""Sizes and durations as people write them."""

from __future__ import annotations

import re

import rich_click as click

_BYTES = {
    "": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40, "K": 10**3, "M": 10**6, "G": 10**9,
    "T": 10**12,
}  # fmt: skip
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_NUMBER = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*\Z")


def parse_size(text: str) -> int:
    """Return bytes from `500MB`, `20 GiB`, `0`.

    Raises:
        BadParameter: the text is no size.
    """
    match = _NUMBER.match(text)
    unit = _BYTES.get(match[2].upper()) if match else None
    if match is None or unit is None:
        raise click.BadParameter(f"{text!r} is no size; write 500MB or 20GiB.")
    return int(float(match[1]) * unit)


def parse_duration(text: str) -> float:
    """Return seconds from `30m`, `12h`, `7d`, `0`.

    Raises:
        BadParameter: the text is no duration.
    """
    match = _NUMBER.match(text)
    unit = _SECONDS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise click.BadParameter(f"{text!r} is no duration; write 30m, 12h or 7d.")
    return float(match[1]) * unit
