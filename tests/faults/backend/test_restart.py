"""Killed or stopped in the middle of an upload or a run: after the restart nothing is missing."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.backend_process import BackendProcess, run_flow
from tests.e2e.backend.interpreters import NEWEST
from tests.faults.backend.inspection import audit, database_copy
from tests.faults.backend.wire import RefusedError, Wire, md5_base64

MIB = 1 << 20
RUN = "restarted"


def wait_until(condition: Callable[[], object], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


def incoming(backend: BackendProcess) -> list[Path]:
    """Files that are arriving."""
    return list((backend.data_dir / "blobs" / "incoming").iterdir())


def half_sent(
    backend: BackendProcess, url: str, content: bytes, *, chunked: bool = False
) -> socket.socket:
    """A connection that has sent half of a PUT, which the backend has begun to store."""
    connection = socket.create_connection(("127.0.0.1", backend.port))
    half = content[: len(content) // 2]
    head = f"PUT {urlsplit(url).path} HTTP/1.1\r\nHost: 127.0.0.1:{backend.port}\r\n"
    if chunked:
        # No length and no digest: only the missing last chunk tells that this is not all.
        head += "Transfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head.encode() + f"{len(half):x}\r\n".encode() + half + b"\r\n")
    else:
        head += f"Content-Length: {len(content)}\r\nContent-MD5: {md5_base64(content)}\r\n\r\n"
        connection.sendall(head.encode() + half)
    wait_until(lambda: incoming(backend))
    return connection


def test_killed_in_the_middle_of_an_upload(backend: BackendProcess) -> None:
    """The signed URL outlives the process: the client repeats the PUT, and it is there once."""
    content = bytes(range(256)) * (4 * MIB // 256)
    with Wire(backend) as wire:
        wire.start_run(RUN)
        url = wire.file_url(RUN, "model.bin")
    with half_sent(backend, url, content):
        backend.kill()
    assert incoming(backend)
    backend.start()
    audit(backend.data_dir)
    with Wire(backend) as wire:
        assert wire.run_files(RUN) == {}
        wire.put(url, content)
        wire.put(url, content)
        assert wire.run_files(RUN) == {"model.bin": content}
    audit(backend.data_dir)


def test_stopped_in_the_middle_of_an_upload(backend: BackendProcess) -> None:
    """SIGTERM lets a request in progress end, answers it, and takes no new ones."""
    content = bytes(range(256)) * (4 * MIB // 256)
    with Wire(backend) as wire:
        wire.start_run(RUN)
        url = wire.file_url(RUN, "model.bin")
    assert backend.process
    with half_sent(backend, url, content) as connection:
        backend.process.terminate()
        wait_until(lambda: _refuses(backend))
        connection.sendall(content[len(content) // 2 :])
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 200")
    assert backend.process.wait(20) == 0
    backend.kill()
    audit(backend.data_dir)
    assert not (backend.data_dir / "server.json").exists()
    backend.start()
    with Wire(backend) as wire:
        assert wire.run_files(RUN) == {"model.bin": content}


def _refuses(backend: BackendProcess) -> bool:
    try:
        socket.create_connection(("127.0.0.1", backend.port)).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("broken", ["short", "wrong", "hung up", "chunked"])
def test_a_broken_upload_leaves_nothing(backend: BackendProcess, broken: str) -> None:
    content = bytes(range(256)) * (2 * MIB // 256)
    with Wire(backend) as wire:
        wire.start_run(RUN)
        url = wire.file_url(RUN, "model.bin")
        if broken == "wrong":
            with pytest.raises(RefusedError) as refused:
                wire.put(url, content, **{"Content-MD5": md5_base64(b"other")})
            assert refused.value.status == 400
        else:
            connection = half_sent(backend, url, content, chunked=broken == "chunked")
            if broken == "short":
                connection.shutdown(socket.SHUT_WR)
            connection.close()
        wait_until(lambda: not incoming(backend))
        assert wire.run_files(RUN) == {}
        audit(backend.data_dir)


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_restarted_between_parts(backend: BackendProcess, end: str) -> None:
    """Parts that were acknowledged need not be sent again, and old part URLs still work."""
    pieces = [bytes([number]) * MIB + b"tail" for number in range(4)]
    content = b"".join(pieces)
    numbered = [
        {"partNumber": n, "hexMD5": hashlib.md5(piece).hexdigest()}
        for n, piece in enumerate(pieces, 1)
    ]
    with Wire(backend) as wire:
        draft = wire.begin("parts", {"whole.bin": content})
        [target] = wire.file_targets(draft, ["whole.bin"], {"whole.bin": numbered})
        urls = {
            part["partNumber"]: part["uploadUrl"]
            for part in target["uploadMultipartUrls"]["uploadUrlParts"]
        }
        assert sorted(urls) == [1, 2, 3, 4]
        wire.put(urls[1], pieces[0])
        answer = wire.put(urls[3], pieces[2])
        assert answer.headers["etag"].strip('"') == numbered[2]["hexMD5"]
        with pytest.raises(RefusedError):
            wire.put(urls[2], b"other bytes")
    connection = half_sent(backend, urls[2], pieces[1])
    if end == "kill":
        backend.kill()
        connection.close()
    else:
        connection.close()
        assert backend.stop() == 0
    backend.start()
    audit(backend.data_dir)
    with Wire(backend) as wire:
        [again] = wire.file_targets(draft, ["whole.bin"], {"whole.bin": numbered})
        uploads = (target["uploadMultipartUrls"], again["uploadMultipartUrls"])
        assert uploads[0]["uploadID"] == uploads[1]["uploadID"]
        with pytest.raises(RefusedError):
            wire.complete_multipart(draft, again, numbered)
        wire.put(urls[2], pieces[1])
        wire.put(uploads[1]["uploadUrlParts"][3]["uploadUrl"], pieces[3])
        wire.complete_multipart(draft, again, numbered)
        wire.complete_multipart(draft, again, numbered)
        wire.upload_manifest(draft)
        wire.commit(draft)
        wire.commit(draft)
        versions = wire.versions("parts")
        assert [version["files"] for version in versions.values()] == [{"whole.bin": content}]
    audit(backend.data_dir)


def test_the_sdk_over_kills(backend: BackendProcess, tmp_path: Path) -> None:
    """Killed amid a real run's artifact upload, and gone when the run wants to finish."""
    home = tmp_path / "home"
    with _steady_run(backend, home) as (flowing, over):
        wait_until(flowing.exists)
        wait_until(lambda: any(file.stat().st_size > MIB for file in incoming(backend)))
        backend.kill()
        backend.start()
        audit(backend.data_dir, settled=False)
        wait_until(lambda: _versions(backend) == 1)
        backend.kill()
        before = _retries(home)
        over.touch()
        wait_until(lambda: _retries(home) > before)
        backend.start()
    _check_steady_run(backend, home)


@pytest.mark.soak
def test_the_sdk_over_many_kills(backend: BackendProcess, tmp_path: Path) -> None:
    """Rows go out every 15 s; between them the backend dies once, and once before the first."""
    home = tmp_path / "home"
    with _steady_run(backend, home) as (_, over):
        for _ in range(4):
            lines = _history_lines(backend)
            backend.kill()
            backend.start()
            audit(backend.data_dir, settled=False)
            wait_until(lambda: _history_lines(backend) > lines + 5)  # noqa: B023 - at once
        over.touch()
    _check_steady_run(backend, home)


@contextmanager
def _steady_run(backend: BackendProcess, home: Path) -> Iterator[tuple[Path, Path]]:
    script = Path(__file__).parent / "flows" / "survives_restarts.py"
    flowing, over = home / "flowing", home / "over"
    failures: list[BaseException] = []

    def log() -> None:
        try:
            run_flow(backend, NEWEST, script, home, "steady", str(flowing), str(over))
        except BaseException as error:
            failures.append(error)

    client = threading.Thread(target=log)
    client.start()
    try:
        yield flowing, over
    finally:
        over.parent.mkdir(exist_ok=True)
        over.touch()
        client.join()
        if failures:
            raise failures[0]


def _check_steady_run(backend: BackendProcess, home: Path) -> None:
    steps = int((home / "steps").read_text())
    with Wire(backend) as wire:
        assert [row["loss"] for row in wire.history("steady", "steady")] == list(range(steps))
        files = wire.run_files("steady", "steady")
        assert files["last.txt"] == str(steps).encode()
        printed = files["output.log"].decode().splitlines()
        lines = [line for line in printed if line.startswith("step")]
        assert lines == [f"step {step}" for step in range(steps)]
        data = wire.ask(
            '{project(name: "steady") {run(name: "steady") {state}'
            ' artifact(name: "weights:best") {versionIndex files {edges {node {directUrl}}}}}}'
        )["project"]
        assert data["run"]["state"] == "finished"
        assert data["artifact"]["versionIndex"] == 0
        [edge] = data["artifact"]["files"]["edges"]
        content = b"".join(bytes([block]) * MIB for block in range(64))
        assert wire.get(edge["node"]["directUrl"]) == content
    audit(backend.data_dir)


def _retries(home: Path) -> int:
    """How often the SDK said that it repeats a request."""
    logs = (home / "runs").glob("wandb/run-*/logs/debug-internal.log")
    return sum(log.read_text().count("retrying") for log in logs)


def _versions(backend: BackendProcess) -> int:
    with database_copy(backend.data_dir) as connection:
        query = "SELECT count(*) FROM artifacts WHERE state = 'COMMITTED'"
        return int(connection.execute(query).fetchone()[0])


def _history_lines(backend: BackendProcess) -> int:
    with database_copy(backend.data_dir) as connection:
        query = "SELECT count(*) FROM run_lines WHERE stream = 'history'"
        return int(connection.execute(query).fetchone()[0])
