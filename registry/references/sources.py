"""Opening what a reference names, and not letting it lead anywhere else."""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin, urlsplit

from registry.errors import NotFoundError, UnavailableError, UnsafeContentError
from registry.references.allowed import AllowedReferences

if TYPE_CHECKING:
    import httpx

_READ_BYTES = 1024 * 1024
_REDIRECTS = 5
_CONNECT_TIMEOUT_S = 20.0
_READ_TIMEOUT_S = 60.0
_METADATA = frozenset({"100.100.100.200", "fd00:ec2::254", "168.63.129.16"})
"""Where clouds answer with the machine's own keys, beside the link-local addresses."""

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Opened:
    """A reference that can be read.

    Attributes:
        chunks: its bytes.
        etag: as the server says; None where there is none.
        size_bytes: as the server or the disk says, None when it does not.
    """

    chunks: Iterator[bytes]
    etag: str | None
    size_bytes: int | None


@contextmanager
def opened(url: str, allowed: AllowedReferences) -> Iterator[Opened]:
    """Open a reference that is allowed.

    Raises:
        UnsafeContentError: a redirect, a link or the address itself leads elsewhere.
        NotFoundError: there is nothing.
        UnavailableError: it cannot be read, or not by Runport.
    """
    scheme = urlsplit(url).scheme
    if scheme == "file":
        with _opened_file(unquote(urlsplit(url).path), allowed) as file:
            size_bytes = os.fstat(file.fileno()).st_size
            yield Opened(iter(lambda: file.read(_READ_BYTES), b""), None, size_bytes)
    elif scheme in {"http", "https"}:
        with _opened_http(url, allowed) as found:
            yield found
    else:
        raise UnavailableError(
            f"Runport does not read {scheme}:// itself: {url}.",
            hint="Copy it into a folder with that storage's own tool, then `registry push` the "
            "folder, or refer to it as https:// or file://.",
        )


@contextmanager
def _opened_file(path: str, allowed: AllowedReferences) -> Iterator[IO[bytes]]:
    _check_beneath(os.path.realpath(path), path, allowed)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        kind = NotFoundError if isinstance(error, FileNotFoundError) else UnavailableError
        raise kind(
            f"The referenced file {path} cannot be read: {error.strerror}.",
            hint="References to files work on the machine, or share, where they were logged.",
        ) from error
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UnsafeContentError(f"The reference {path} is no regular file.")
        # Looked at again now that it is open: a link may have been changed in between.
        with suppress(FileNotFoundError):
            _check_beneath(str(Path(f"/proc/self/fd/{descriptor}").readlink()), path, allowed)
        yield file


def _check_beneath(real: str, path: str, allowed: AllowedReferences) -> None:
    roots = [os.path.realpath(root) for root in allowed.file_roots()]
    if not any(real == root or real.startswith(f"{root.rstrip('/')}/") for root in roots):
        raise UnsafeContentError(
            f"The reference {path} leads to {real}, which is not allowed.",
            hint="Links are followed only inside what --allow-reference names.",
        )


@contextmanager
def _opened_http(url: str, allowed: AllowedReferences) -> Iterator[Opened]:
    import httpx

    timeout = httpx.Timeout(_READ_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S)
    try:
        with httpx.Client(timeout=timeout, follow_redirects=False) as client:
            for _ in range(_REDIRECTS):
                _check_host(url, allowed)
                # Compressed bytes would have another length, and often another ETag.
                with client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as answer:
                    _check_peer(answer, url, allowed)
                    if not answer.is_redirect:
                        yield _read(answer, url)
                        return
                    url = _redirected(url, answer.headers.get("location", ""), allowed)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UnavailableError(
            f"{url} cannot be fetched: {str(error) or type(error).__name__}.", hint="Try again."
        ) from error
    raise UnavailableError(f"{url} redirects without end.", hint="Correct the reference.")


def _read(answer: httpx.Response, url: str) -> Opened:
    if answer.status_code != 200:
        gone = answer.status_code in {404, 410}
        kind = NotFoundError if gone else UnavailableError
        raise kind(
            f"{url} answers {answer.status_code}.",
            hint="What was referred to is not there (any more), or asks for a login.",
        )
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise UnavailableError(f"{url} answers compressed, which was not asked for.")
    length = answer.headers.get("content-length", "")
    size_bytes = int(length) if length.isdigit() else None
    return Opened(answer.iter_bytes(_READ_BYTES), answer.headers.get("etag"), size_bytes)


def _redirected(url: str, location: str, allowed: AllowedReferences) -> str:
    target = urljoin(url, location)
    if not location or not allowed.permits(target):
        raise UnsafeContentError(
            f"{url} redirects to {target}, which is not allowed.",
            hint="Allow that place too, with another --allow-reference, if you trust it.",
        )
    return target


def _check_host(url: str, allowed: AllowedReferences) -> None:
    parts = urlsplit(url)
    with suppress(OSError):
        found = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)
        for _, _, _, _, address in found:
            _check_address(str(address[0]), url, allowed)


def _check_peer(answer: httpx.Response, url: str, allowed: AllowedReferences) -> None:
    # A name may mean another address when it is asked for again.
    stream: Any = answer.extensions.get("network_stream")
    peer = stream.get_extra_info("server_addr") if stream is not None else None
    if peer:
        _check_address(str(peer[0]), url, allowed)


def _check_address(text: str, url: str, allowed: AllowedReferences) -> None:
    address = _plain(text.partition("%")[0])
    if not (address.is_link_local or address.is_multicast or str(address) in _METADATA):
        return
    if urlsplit(url).hostname == str(address) and allowed.names_host(url):
        return
    raise UnsafeContentError(
        f"{url} leads to {address}, an address of this machine's surroundings.",
        hint="Such an address is fetched only when --allow-reference names it in figures.",
    )


def _plain(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the address; the one inside where IPv6 only wraps one of IPv4."""
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
