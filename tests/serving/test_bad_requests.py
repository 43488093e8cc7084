"""Requests that no client library would send, over raw sockets: each refused, none opaque."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.serving.conftest import TinyModel
from tests.serving.server_process import ServerProcess, server_process

JSON = "application/json"


@pytest.fixture(scope="module")
def server(
    models: tuple[TinyModel, TinyModel], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    home = tmp_path_factory.mktemp("server")
    arguments = (f"bert={models[0].export}", "--no-report", "--threads", "1")
    with server_process(home, *arguments) as server:
        yield server


def exchange(server: ServerProcess, raw: bytes, *, timeout_s: float = 30.0) -> bytes:
    """Send bytes, half-close, return all that comes back."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=timeout_s) as connection:
        connection.sendall(raw)
        chunks = []
        try:
            while chunk := connection.recv(65536):
                chunks.append(chunk)
        except ConnectionResetError:
            pass
        return b"".join(chunks)


def parse(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(status.split(" ")[1]), headers, body


def post(
    server: ServerProcess, body: bytes, *, path: str = "/models/bert", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    given = {
        "host": f"127.0.0.1:{server.port}",
        "content-type": JSON,
        "content-length": str(len(body)),
        "connection": "close",
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in given.items() if value)
    return parse(exchange(server, f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body))


def problem(answer: tuple[int, dict[str, str], bytes]) -> dict[str, Any]:
    status, headers, body = answer
    assert headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = json.loads(body)
    assert found["status"] == status
    assert found["request_id"] == headers["x-request-id"]
    assert isinstance(found["error"], str)
    assert found["error"]
    for leak in ("Traceback", "/site-packages", 'File "', "serving."):
        assert leak not in body.decode()
    return found


@pytest.mark.parametrize(
    ("body", "status", "error_type"),
    [
        (b"", 400, "invalid-request"),
        (b"{", 400, "invalid-request"),
        (b"[]", 400, "invalid-request"),
        (b'"text"', 400, "invalid-request"),
        (b"null", 400, "invalid-request"),
        (b"{}", 400, "invalid-request"),
        (b'{"inputs": NaN}', 400, "invalid-request"),
        (b'{"inputs": "a", "x": -9223372036854775809}', 400, "invalid-request"),
        (b'{"inputs": "a", "parameters": {"top_k": 18446744073709551616}}', 400, "invalid-request"),
        (b'{"inputs": "a", "parameters": {"x": Infinity}}', 400, "invalid-request"),
        (b'{"inputs": "a", "parameters": {"x": 1e999}}', 400, "invalid-request"),
        (b'{"inputs": "\\ud800"}', 400, "invalid-request"),
        (b'{"inputs": "\xff\xfe"}', 400, "invalid-request"),
        (b'{"inputs": "\xed\xa0\x80"}', 400, "invalid-request"),
        (b'{"inputs": "a"} trailing', 400, "invalid-request"),
        (b"[" * 100_000, 400, "invalid-request"),
        (b'{"inputs": ' + b"[" * 100 + b"]" * 100 + b"}", 400, "invalid-request"),
        (b'{"inputs": null}', 400, "invalid-request"),
        (b'{"inputs": 7}', 400, "invalid-request"),
        (b'{"inputs": true}', 400, "invalid-request"),
        (b'{"inputs": ["a", 7]}', 400, "invalid-request"),
        (b'{"inputs": ["a", ["b"]]}', 400, "invalid-request"),
        (b'{"inputs": "a", "parameters": []}', 400, "invalid-request"),
        (b'{"inputs": []}', 422, "invalid-input"),
        (b'{"inputs": {"txt": "a"}}', 422, "invalid-input"),
        (b'{"inputs": {"text": 7}}', 422, "invalid-input"),
        (b'{"inputs": ["fine", {"text": 7}]}', 422, "invalid-input"),
        (b'{"inputs": "a", "parameters": {"top_k": 0}}', 422, "invalid-input"),
        (b'{"inputs": "a", "parameters": {"top_k": "many"}}', 422, "invalid-input"),
        (b'{"inputs": "a", "parameters": {"function_to_apply": "tanh"}}', 422, "invalid-input"),
        (json.dumps({"inputs": ["a"] * 257}).encode(), 413, "payload-too-large"),
        (json.dumps({"inputs": "a" * 1_000_001}).encode(), 413, "payload-too-large"),
    ],
)
def test_bodies(server: ServerProcess, body: bytes, status: int, error_type: str) -> None:
    answer = post(server, body)
    found = problem(answer)
    assert (answer[0], found["error_type"]) == (status, error_type)
    assert found["hint"]


@pytest.mark.parametrize(
    ("body", "items"),
    [
        ('{"inputs": ""}', 1),
        ('{"inputs": "\\u0000"}', 1),
        ('{"inputs": "😀"}', 1),
        ('{"inputs": "\\ud83d\\ude00"}', 1),
        ('{"inputs": "a", "inputs": "b"}', 1),
        ('{"inputs": {"text": "a", "text_pair": "b"}}', 1),
        ('{"inputs": ["a", {"text": "b"}], "parameters": null, "options": {"use_cache": true}}', 2),
        ('{"inputs": "' + "word " * 20_000 + '"}', 1),
    ],
)
def test_odd_but_valid_bodies(server: ServerProcess, body: str, items: int) -> None:
    status, _, answer = post(server, body.encode())
    assert status == 200, answer
    assert len(json.loads(answer)) == items


def test_of_several_inputs_the_wrong_one_is_named(server: ServerProcess) -> None:
    found = problem(post(server, b'{"inputs": ["fine", {"text": 7}]}'))
    assert found["error"].startswith("inputs[1]:")


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "json", "*/*"],
)
def test_only_json_is_read(server: ServerProcess, content_type: str) -> None:
    answer = post(server, b'{"inputs": "a"}', content_type=content_type)
    assert problem(answer)["error_type"] == "unsupported-media-type"
    assert answer[0] == 415


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content_type": "application/json; charset=utf-8"}, 200),
        ({"content_type": 'application/json;charset="UTF-8"'}, 200),
        ({"content_type": "application/vnd.api+json"}, 200),
        ({"content_type": "application/json; charset=utf-16"}, 415),
        ({"content_encoding": "gzip"}, 415),
        ({"content_encoding": "identity"}, 200),
    ],
)
def test_encodings(server: ServerProcess, headers: dict[str, str], status: int) -> None:
    assert post(server, b'{"inputs": "a"}', **headers)[0] == status


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200),
        ("localhost:{port}", 200),
        ("LOCALHOST", 200),
        ("[::1]:{port}", 200),
        ("evil.example", 421),
        ("evil.example:{port}", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost@evil.example", 421),
        ("127.0.0.1:{port}.evil.example", 421),
        ("0.0.0.0:{port}", 421),
        ("", 421),
    ],
)
def test_hosts(server: ServerProcess, host: str, status: int) -> None:
    answer = post(server, b'{"inputs": "a"}', host=host.format(port=server.port))
    assert answer[0] == status
    if status == 421:
        assert problem(answer)["error_type"] == "misdirected-request"


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:{port}", 200),
        ("http://127.0.0.1:1", 403),
        ("http://localhost:{port}", 403),
        ("https://evil.example", 403),
        ("null", 403),
    ],
)
def test_origins(server: ServerProcess, origin: str, status: int) -> None:
    answer = post(server, b'{"inputs": "a"}', origin=origin.format(port=server.port))
    assert answer[0] == status
    assert "access-control-allow-origin" not in answer[1]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_methods(server: ServerProcess, method: str) -> None:
    path = "/models/bert" if method != "GET" else "/nothing"
    raw = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    answer = parse(exchange(server, raw.encode()))
    if method == "GET":
        assert answer[0] == 404
    elif method == "OPTIONS":
        assert answer[0] in {204, 405}
        assert "access-control-allow-origin" not in answer[1]
        return
    else:
        assert answer[0] == 405
    problem(answer)


@pytest.mark.parametrize(
    "path",
    ["/models/", "/models/../models", "/models/%00", "/models/%2e%2e", "/models/a%2Fb", "//"],
)
def test_paths(server: ServerProcess, path: str) -> None:
    answer = post(server, b'{"inputs": "a"}', path=path)
    assert answer[0] in {404, 405}
    problem(answer)


@pytest.mark.parametrize("given", ["ok-1.2_x", "x" * 128])
def test_request_ids_are_kept(server: ServerProcess, given: str) -> None:
    assert post(server, b'{"inputs": "a"}', x_request_id=given)[1]["x-request-id"] == given.lower()


@pytest.mark.parametrize("given", ["x" * 129, "a b", "<script>", "é"])
def test_odd_request_ids_are_replaced(server: ServerProcess, given: str) -> None:
    assert post(server, b'{"inputs": "a"}', x_request_id=given)[1]["x-request-id"] != given


def test_a_declared_large_body_is_refused_before_it_is_sent(server: ServerProcess) -> None:
    raw = (
        "POST /models/bert HTTP/1.1\r\nhost: localhost\r\n"
        f"content-type: {JSON}\r\ncontent-length: 99999999999\r\n\r\n"
    )
    answer = parse(exchange(server, raw.encode()))
    assert answer[0] == 413
    assert answer[1]["connection"] == "close"
    problem(answer)


def test_an_undeclared_large_body_is_cut_off(server: ServerProcess) -> None:
    before = psutil.Process(server.process.pid).memory_info().rss
    head = (
        "POST /models/bert HTTP/1.1\r\nhost: localhost\r\n"
        f"content-type: {JSON}\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    chunk = b"10000\r\n" + b"a" * 0x10000 + b"\r\n"
    sent = 0
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(head.encode())
        try:
            while sent < 256 * 2**20:
                connection.sendall(chunk)
                sent += len(chunk)
        except (ConnectionError, TimeoutError):
            pass
    assert sent < 128 * 2**20
    after = psutil.Process(server.process.pid).memory_info().rss
    assert after - before < 64 * 2**20


def test_many_tiny_chunks_are_one_body(server: ServerProcess) -> None:
    body = json.dumps({"inputs": "word " * 200}).encode()
    chunks = b"".join(b"1\r\n" + body[i : i + 1] + b"\r\n" for i in range(len(body))) + b"0\r\n\r\n"
    head = (
        "POST /models/bert HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
        f"content-type: {JSON}\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    assert parse(exchange(server, head.encode() + chunks))[0] == 200


def test_endless_headers_are_cut_off(server: ServerProcess) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n")
        sent = 0
        try:
            while sent < 64 * 2**20:
                connection.sendall(b"x-pad: " + b"a" * 4096 + b"\r\n")
                sent += 4096
        except ConnectionError:
            pass
    assert sent < 8 * 2**20


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /models/bert HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"POST /models/bert HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
        b"POST /models/bert HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n"
        b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\x00" * 100,
    ],
)
def test_what_is_no_http_is_refused(server: ServerProcess, raw: bytes) -> None:
    answer = exchange(server, raw)
    assert answer == b"" or parse(answer)[0] in {400, 505, 421}


def test_a_client_that_hangs_up_is_logged_and_harms_nobody(server: ServerProcess) -> None:
    body = json.dumps({"inputs": ["one two three " * 20] * 200}).encode()
    head = (
        "POST /models/bert HTTP/1.1\r\nhost: localhost\r\nx-request-id: hung-up\r\n"
        f"content-type: {JSON}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    for cut in (len(body), len(body) // 2):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            # A reset, not an orderly end.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.sendall(head.encode() + body[:cut])
        server.wait_for("http.request", request_id="hung-up")
    deadline = time.monotonic() + 30
    while server.model()["in_flight"]:
        assert time.monotonic() < deadline
    assert post(server, b'{"inputs": "a"}')[0] == 200


def test_inputs_and_keys_are_not_logged(server: ServerProcess) -> None:
    post(server, b'{"inputs": "xyzzy-secret-text"}', authorization="Bearer rp_1234_abcdef")
    post(server, b'{"inputs": {"txt": "xyzzy-secret-text"}}')
    assert not any("xyzzy" in line or "rp_1234" in line for line in server.words)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(st.sampled_from(["inputs", "parameters", "options", "x"]), json_values))
def test_no_json_makes_an_internal_error(server: ServerProcess, document: dict[str, Any]) -> None:
    answer = post(server, json.dumps(document).encode())
    assert answer[0] in {200, 400, 413, 422}
    if answer[0] != 200:
        problem(answer)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_make_an_internal_error(server: ServerProcess, body: bytes) -> None:
    assert post(server, body)[0] in {200, 400, 413, 422}


def test_the_server_is_as_it_was(server: ServerProcess, tmp_path: Path) -> None:
    assert server.process.poll() is None
    assert server.model()["crashes"] == 0
    assert not [line for line in server.log if line.get("event") == "http.failed"]
