"""Time and room: slow clients, full queues, deadlines."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from huggingface_hub.utils import HfHubHTTPError

from tests.serving.conftest import TinyModel
from tests.serving.server_process import ServerProcess, server_process

SCRIPT = Path(__file__).with_name("serve_with_limits.py")
POST = b"POST /models/bert HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


@pytest.fixture(scope="module")
def impatient(
    models: tuple[TinyModel, TinyModel], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server that waits for nobody."""
    home = tmp_path_factory.mktemp("impatient")
    limits = {
        "header_timeout_s": 0.3,
        "body_timeout_s": 0.3,
        "write_timeout_s": 0.3,
        "keep_alive_s": 1,
        "connections": 8,
        "items": 50_000,
        "body_bytes": 50_000_000,
        "characters": 50_000_000,
    }
    arguments = (str(models[0].export), str(home), json.dumps(limits))
    with server_process(home, *arguments, command=[str(SCRIPT)]) as server:
        yield server


def all_of(connection: socket.socket) -> bytes:
    answer = b""
    try:
        while chunk := connection.recv(65536):
            answer += chunk
    except ConnectionResetError:
        pass
    return answer


def connect(server: ServerProcess) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=30)


@pytest.mark.parametrize("sent", [b"", b"GET", b"GET /livez HTTP/1.1\r\nhost: local"])
def test_slow_headers_are_not_waited_for(impatient: ServerProcess, sent: bytes) -> None:
    with connect(impatient) as connection:
        connection.sendall(sent)
        assert all_of(connection).startswith(b"HTTP/1.1 408")


def test_trickling_headers_are_not_waited_for(impatient: ServerProcess) -> None:
    with connect(impatient) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nx-pad: ")
        try:
            for _ in range(600):
                connection.sendall(b"a")
                time.sleep(0.05)
            pytest.fail("waited for")
        except ConnectionError:
            pass


def test_a_second_request_has_its_own_header_deadline(impatient: ServerProcess) -> None:
    with connect(impatient) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\nGET /li")
        answer = all_of(connection)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"HTTP/1.1 408" in answer


def test_slow_bodies_are_not_waited_for(impatient: ServerProcess) -> None:
    with connect(impatient) as connection:
        connection.sendall(POST + b'content-length: 100\r\n\r\n{"inputs": ')
        answer = all_of(connection)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b'"body-timeout"' in answer


def test_idle_connections_are_closed(impatient: ServerProcess) -> None:
    with connect(impatient) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert all_of(connection).startswith(b"HTTP/1.1 200")


def test_one_connection_too_many_is_refused(impatient: ServerProcess) -> None:
    with ThreadPoolExecutor(16) as pool:

        def ask(_: int) -> bytes:
            with connect(impatient) as connection:
                return all_of(connection)

        answers = list(pool.map(ask, range(16)))
    assert answers.count(b"") >= 8 - 1
    assert any(answer.startswith(b"HTTP/1.1 408") for answer in answers)
    with connect(impatient) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert connection.recv(15) == b"HTTP/1.1 200 OK"


def test_an_answer_that_is_not_taken_is_dropped(
    impatient: ServerProcess, models: tuple[TinyModel, TinyModel]
) -> None:
    """A client that sends requests and reads nothing fills its buffers, and no more than them."""
    body = json.dumps({"inputs": ["a"] * 1000, "parameters": {"top_k": None}}).encode()
    request = POST + b"content-length: %d\r\n\r\n" % len(body) + body
    with connect(impatient) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with pytest.raises(ConnectionError):
            # Blocks when the buffers are full, until the server drops the connection.
            connection.sendall(request * 20_000)
    impatient.until_ready()


@pytest.fixture(scope="module")
def small(
    models: tuple[TinyModel, TinyModel], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server with a short queue and a short deadline."""
    home = tmp_path_factory.mktemp("small")
    options = ("--max-queue", "4", "--request-timeout", "3", "--no-report", "--threads", "1")
    with server_process(home, f"bert={models[0].export}", *options) as server:
        yield server


def post(server: ServerProcess, count: int = 1) -> httpx.Response:
    return httpx.post(f"{server.url}/models/bert", json={"inputs": ["a"] * count}, timeout=30)


def in_flight(server: ServerProcess, count: int) -> None:
    deadline = time.monotonic() + 30
    while server.model()["in_flight"] != count:
        assert time.monotonic() < deadline


def test_a_full_queue_is_told_before_the_body_is_read(small: ServerProcess) -> None:
    worker = small.model()["worker_pid"]
    os.kill(worker, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(4) as pool:
            inside = [pool.submit(post, small) for _ in range(4)]
            in_flight(small, 4)
            with connect(small) as connection:
                connection.sendall(POST + b"content-length: 1000\r\n\r\n")
                head = connection.recv(65536).decode()
            assert head.startswith("HTTP/1.1 429")
            assert "\r\nretry-after: 1\r\n" in head
            assert httpx.get(f"{small.url}/livez").status_code == 200
            os.kill(worker, signal.SIGCONT)
            assert [future.result().status_code for future in inside] == [200] * 4
    finally:
        os.kill(worker, signal.SIGCONT)
    assert post(small, 4).status_code == 200


def test_more_items_than_the_queue_takes_are_refused(small: ServerProcess) -> None:
    answer = post(small, 5)
    assert answer.status_code == 429
    assert answer.json()["error_type"] == "overloaded"
    assert int(answer.headers["retry-after"]) >= 1


def test_the_real_client_sees_what_went_wrong(small: ServerProcess) -> None:
    from huggingface_hub import InferenceClient

    client = InferenceClient(model=f"{small.url}/models/bert")
    with pytest.raises(HfHubHTTPError) as caught:
        client.text_classification(["a"] * 5)  # type: ignore[arg-type]
    assert caught.value.response.status_code == 429
    assert caught.value.request_id == caught.value.response.headers["x-request-id"]
    assert "queue" in str(caught.value)


def test_a_deadline_is_kept_when_the_worker_hangs(small: ServerProcess) -> None:
    worker = small.model()["worker_pid"]
    os.kill(worker, signal.SIGSTOP)
    try:
        answer = post(small)
        assert answer.status_code == 504
        assert answer.json()["error_type"] == "deadline-exceeded"
        in_flight(small, 0)
    finally:
        os.kill(worker, signal.SIGCONT)
    assert post(small).status_code == 200
