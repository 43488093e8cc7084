"""Which names, aliases and tags are allowed, and how `name:alias` reads. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from registry.errors import UsageError

MAX_NAME_LENGTH = 128
LATEST = "latest"
_TAG = re.compile(r"[-\w]+( +[-\w]+)*")
_VERSION = re.compile(r"v([0-9]{1,18})")
_MAX_TAGS = 100


def check_name(name: str, what: str) -> str:
    """Return a collection's or type's name if it is allowed.

    Raises:
        UsageError: empty, too long, a path, or with a separator or control character.
    """
    bad = set("/\\:") & set(name) or not name.isprintable() or name in (".", "..")
    if not name or len(name) > MAX_NAME_LENGTH or bad:
        raise UsageError(f"{name[:MAX_NAME_LENGTH]!r} is not a valid {what} name.")
    return name


def check_alias(alias: str) -> str:
    """Return an alias if it is allowed.

    Raises:
        UsageError: empty, too long, or with a separator or control character.
    """
    if not 0 < len(alias) <= MAX_NAME_LENGTH or {"/", ":"} & set(alias) or not alias.isprintable():
        raise UsageError(f"{alias[:MAX_NAME_LENGTH]!r} is not a valid alias.")
    return alias


def check_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Return tags, each once, if all are allowed.

    Raises:
        UsageError: too many, too long, or with other characters than words, `-` and spaces.
    """
    unique = tuple(dict.fromkeys(tags))
    if len(unique) > _MAX_TAGS:
        raise UsageError(f"{len(unique)} tags are too many; {_MAX_TAGS} are allowed.")
    for tag in unique:
        if len(tag) > MAX_NAME_LENGTH or not _TAG.fullmatch(tag):
            raise UsageError(f"{tag[:MAX_NAME_LENGTH]!r} is not a valid tag.")
    return unique


def version_number(alias: str) -> int | None:
    """Return 3 for `v3`, None for anything else."""
    match = _VERSION.fullmatch(alias)
    return int(match.group(1)) if match else None


def split_name(name: str) -> tuple[str, str]:
    """Return collection and alias of `name:alias`; without an alias it is `latest`."""
    collection, _, alias = name.partition(":")
    return collection, alias or LATEST
