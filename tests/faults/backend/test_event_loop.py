"""The thread that answers everybody touches no file: disks may be slow, it may not."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from urllib.parse import urlsplit

from tests.backend_process import BackendProcess
from tests.faults.backend.injection import require_strace, traced
from tests.faults.backend.inspection import audit
from tests.faults.backend.test_restart import half_sent, incoming, wait_until
from tests.faults.backend.wire import Wire

CALLS = "openat,pread64,pwrite64,fsync,fdatasync,rename,unlink,mkdir,ftruncate,write,close"
FILES = {"a.bin": b"a" * 200_000, "b.txt": b"b"}


def test_no_file_is_touched_by_the_event_loop(backend: BackendProcess, tmp_path: Path) -> None:
    require_strace()
    assert backend.process
    log = tmp_path / "calls"
    content = bytes(range(256)) * 12_000
    with Wire(backend) as wire:
        _everything(wire, content)  # once before, so that modules and caches are loaded
        url = wire.file_url("traced", "cut.bin")
        with traced(backend.process.pid, CALLS, log):
            _everything(wire, content + b"!")
            half_sent(backend, url, content).close()
            wait_until(lambda: not incoming(backend))
            with backend.client() as pages:
                assert pages.get("/local/faults/runs/traced").status_code == 200
    main = str(backend.process.pid)
    touched = [
        line
        for line in log.read_text().splitlines()
        if line.split()[0] == main
        and re.search(r"openat|pread64|pwrite64|sync|rename|unlink|mkdir|ftruncate", line)
        and "/proc/" not in line
    ]
    assert not touched, "\n".join(touched)
    assert "rename(" in log.read_text()


def _everything(wire: Wire, content: bytes) -> None:
    wire.start_run("traced")
    wire.save_file("traced", "model.bin", content)
    assert wire.run_files("traced")["model.bin"] == content
    wire.stream("traced", 0, [{"_step": 0}])
    wire.log_artifact("traced", {**FILES, "c.bin": content[-100:]}, run="traced")
    wire.versions("traced")


def test_cut_connections_leak_nothing(backend: BackendProcess) -> None:
    """Downloads and uploads that clients give up leave no open file behind."""
    assert backend.process
    descriptors = Path(f"/proc/{backend.process.pid}/fd")
    content = bytes(range(256)) * 40_000
    with Wire(backend) as wire:
        wire.start_run("cut")
        wire.save_file("cut", "large.bin", content)
        query = '{project(name: "faults") {run(name: "cut") {files {edges {node {directUrl}}}}}}'
        [edge] = wire.ask(query)["project"]["run"]["files"]["edges"]
        before = len(list(descriptors.iterdir()))
        put, get = wire.file_url("cut", "late.bin"), edge["node"]["directUrl"]
        for _ in range(30):
            half_sent(backend, put, content).close()
            with socket.create_connection(("127.0.0.1", backend.port)) as connection:
                head = f"GET {urlsplit(get).path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
                connection.sendall(head.encode())
                assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        wait_until(lambda: not incoming(backend))
        wait_until(lambda: len(list(descriptors.iterdir())) <= before + 4)
        assert wire.run_files("cut") == {"large.bin": content}
    audit(backend.data_dir)
