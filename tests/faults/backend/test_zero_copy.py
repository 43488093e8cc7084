"""Downloads that the kernel moves: whole, in order, and without a trace when the client goes."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.backend_process import BackendProcess
from tests.faults.backend.wire import Wire

SIZE_BYTES = 24 * 1024 * 1024
MORE_THAN_THREADS = 40
DEADLINE_S = 30.0


@pytest.fixture
def body() -> bytes:
    return os.urandom(SIZE_BYTES)


@pytest.fixture
def url(backend: BackendProcess, body: bytes) -> Iterator[str]:
    with Wire(backend) as wire, httpx.Client(timeout=60, verify=False) as plain:
        wire.start_run("sent")
        headers = {"content-length": str(len(body))}
        upload = wire.file_url("sent", "large.bin")
        assert plain.put(upload, content=body, headers=headers).status_code == 200
        data = wire.ask(
            '{project(name: "faults") {run(name: "sent") {files {edges {node {directUrl}}}}}}'
        )
        [edge] = data["project"]["run"]["files"]["edges"]
        yield edge["node"]["directUrl"]


def ask(url: str, stack: ExitStack, *ranges: str) -> socket.socket:
    """Connect and send requests, one after the other, without waiting for answers."""
    parts = urlsplit(url)
    connection = stack.enter_context(
        socket.create_connection((parts.hostname, parts.port), timeout=DEADLINE_S)
    )
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    for wanted in ranges:
        head = (f"GET {target} HTTP/1.1", f"Host: {parts.netloc}", f"Range: bytes={wanted}")
        connection.sendall("\r\n".join([*head, "", ""]).encode())
    return connection


def bodies(connection: socket.socket, count: int) -> list[bytes]:
    """Read so many answers."""
    found = []
    with connection.makefile("rb") as stream:
        for _ in range(count):
            assert stream.readline().startswith(b"HTTP/1.1 206")
            length = 0
            while (line := stream.readline().strip().lower()) != b"":
                if line.startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            found.append(stream.read(length))
    return found


def descriptors(backend: BackendProcess) -> int:
    assert backend.process
    return len(list(Path(f"/proc/{backend.process.pid}/fd").iterdir()))


def test_answers_to_requests_sent_at_once_come_in_order(url: str, body: bytes) -> None:
    with ExitStack() as stack:
        wanted = ("0-23999999", "5-9", f"1000-{SIZE_BYTES - 1}", "7-3000000")
        connection = ask(url, stack, *wanted)
        found = bodies(connection, len(wanted))
    expected = [body[:24_000_000], body[5:10], body[1000:], body[7:3_000_001]]
    assert [len(each) for each in found] == [len(each) for each in expected]
    assert found == expected


def test_readers_that_wait_hold_no_thread(backend: BackendProcess, url: str, body: bytes) -> None:
    with ExitStack() as stack:
        waiting = [
            ask(url, stack, f"{number}-{SIZE_BYTES - 1}") for number in range(MORE_THAN_THREADS)
        ]
        with Wire(backend) as wire:
            assert wire.ask("{viewer {id}}")["viewer"]
        for number in (0, MORE_THAN_THREADS - 1):
            assert bodies(waiting[number], 1) == [body[number:]]


def test_clients_that_hang_up_leave_nothing_open(backend: BackendProcess, url: str) -> None:
    with httpx.Client(timeout=60) as plain:
        plain.get(url, headers={"range": "bytes=0-9"})
    before = descriptors(backend)
    for _ in range(20):
        with ExitStack() as stack:
            connection = ask(url, stack, f"0-{SIZE_BYTES - 1}")
            assert connection.recv(100_000)
    deadline = time.monotonic() + DEADLINE_S
    while descriptors(backend) > before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert descriptors(backend) <= before
