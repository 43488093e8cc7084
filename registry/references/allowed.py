"""Which references the user allowed, by name; pure.

    s3://bucket/prefix   https://host[:port]/path   file:///data/models

An entry allows itself and what lies beneath it, whole path segments at a time.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import SplitResult, unquote, urlsplit

from registry.errors import ConfigError, UnsafeContentError
from registry.versions import FileEntry

SCHEMES = ("s3", "gs", "http", "https", "file")
_PORTS = {"http": 80, "https": 443}
_ETAG = re.compile(r'W/|"|[-;]gzip(?="?\Z)')


@dataclass(frozen=True, slots=True)
class Place:
    """Something that may be referred to.

    Attributes:
        scheme: one of `SCHEMES`.
        host: lower-case host and port, or the bucket; empty for files.
        path: of the address, without a slash at its end.
    """

    scheme: str
    host: str
    path: str

    def holds(self, url: str) -> bool:
        """Whether the address is this place or lies beneath it, as it is written."""
        place = _place(url)
        if place is None or (place.scheme, place.host) != (self.scheme, self.host):
            return False
        return place.path == self.path or place.path.startswith(f"{self.path}/")


@dataclass(frozen=True, slots=True)
class AllowedReferences:
    """All that is allowed."""

    places: tuple[Place, ...] = ()

    def permits(self, url: str) -> bool:
        """Whether the address lies in one of the places, as it is written."""
        return any(place.holds(url) for place in self.places)

    def names_host(self, url: str) -> bool:
        """Whether a place names the very host of the address, whatever the path."""
        found = _place(url)
        return found is not None and any(
            (place.scheme, place.host) == (found.scheme, found.host) for place in self.places
        )

    def file_roots(self) -> list[str]:
        """Return the folders and files of this machine that are allowed."""
        return [place.path or "/" for place in self.places if place.scheme == "file"]


def parse_allowed(texts: Iterable[str]) -> AllowedReferences:
    """Parse the places of `--allow-reference`.

    Raises:
        ConfigError: one is no address of a known kind, or allows too much to be meant.
    """
    places = []
    for text in texts:
        place = _place(text)
        if place is None or (place.scheme == "file" and not place.path):
            raise ConfigError(
                f"{text!r} is no place that references may lead to.",
                hint="For example s3://bucket/prefix, https://host/path or file:///data/models.",
            )
        places.append(place)
    return AllowedReferences(tuple(places))


def _place(url: str) -> Place | None:
    if any(ord(sign) <= 32 or sign == "\\" for sign in url):
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    path = unquote(parts.path).rstrip("/")
    climbs = any(part in {".", ".."} for part in path.split("/")) or "\0" in path
    if parts.scheme not in SCHEMES or climbs or "@" in parts.netloc:
        return None
    if parts.scheme == "file":
        local = parts.netloc in {"", "localhost"} and path.startswith("/")
        return Place("file", "", path) if local or not path else None
    host = (parts.hostname or "").rstrip(".")
    return Place(parts.scheme, _with_port(parts, host, port), path) if host else None


def _with_port(parts: SplitResult, host: str, port: int | None) -> str:
    return host if port in (None, _PORTS.get(parts.scheme)) else f"{host}:{port}"


def refuse_unallowed(name: str, entry: FileEntry, allowed: AllowedReferences) -> None:
    """Refuse a reference that nothing allows.

    Raises:
        UnsafeContentError: the hint names what would allow it.
    """
    url = entry.reference
    if url is None or allowed.permits(url):
        return
    place = _place(url)
    leave = f"Log the file itself, or leave it out with --exclude {entry.path!r}."
    if place is not None:
        parent = str(PurePosixPath(place.path or "/").parent)
        shown = f"{place.scheme}://{place.host}{parent if parent != '/' else ''}"
        leave = f"--allow-reference {shown} allows what lies there. {leave}"
    raise UnsafeContentError(
        f"{name} refers to {url} for {entry.path!r} instead of holding its bytes.", hint=leave
    )


def is_checkable(entry: FileEntry) -> bool:
    """Whether the manifest says anything about the bytes of a reference.

    With `checksum=False`, or for a server without ETags, it only says the address again.
    """
    url, digest = entry.reference or "", entry.reference_digest
    if not digest or digest == url:
        return False
    if urlsplit(url).scheme != "file":
        return True
    path = unquote(urlsplit(url).path)
    about_the_name = (f"file://{urlsplit(url).path}", url, path)
    return digest not in {_md5_text(text) for text in about_the_name}


def same_etag(found: str, recorded: str) -> tuple[bool, bool]:
    """Return whether two ETags name the same content, and whether also the same encoding."""
    bare = _ETAG.sub("", found), _ETAG.sub("", recorded)
    return bare[0] == bare[1], found.strip('"') == recorded.strip('"')


def _md5_text(text: str) -> str:
    return base64.b64encode(hashlib.md5(text.encode()).digest()).decode()  # noqa: S324 - W&B's
