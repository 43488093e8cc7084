"""`kill -9` and I/O errors at chosen system calls, and the order of those that keep truth."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.backend_process import BackendProcess
from tests.faults.backend.injection import injected, require_strace, traced
from tests.faults.backend.inspection import audit
from tests.faults.backend.wire import RefusedError, Wire

RUN = "struck"
CONTENT = b"kept whole or not at all" * 300
FILES = {"a.txt": b"a" * 10, "b.bin": bytes(range(256)) * 16}
COUNTS = {"fsync": 12, "fdatasync": 8, "rename": 4, "mkdir": 4, "write": 44, "pwrite64": 120}
"""About how often one worker thread makes each call in `Story`."""

CHOSEN = (
    ("fsync", 1),  # the file's bytes
    ("fsync", 2),  # the new folder
    ("fsync", 3),  # the folder that holds the renamed file
    ("rename", 1),
    ("rename", 4),
    ("fdatasync", 2),  # commits
    ("fdatasync", 6),
    ("fdatasync", 8),
    ("write", 20),  # answers and file contents
    ("write", 40),
    ("pwrite64", 30),  # pages of the log of the database
    ("pwrite64", 90),
    ("pwrite64", 115),
)
"""For every day; the soak test takes all."""


@dataclass
class Story:
    """One client's writes in order; can be told again after the backend came back."""

    acknowledged: int = 0

    def tell(self, backend: BackendProcess) -> None:
        """Do what was not acknowledged yet."""
        with Wire(backend) as wire:
            steps = (
                lambda: wire.start_run(RUN),
                lambda: wire.save_file(RUN, "model.bin", CONTENT),
                lambda: wire.stream(RUN, 0, [{"_step": 0}, {"_step": 1}]),
                lambda: wire.log_artifact("struck", FILES),
                lambda: wire.stream(RUN, 2, [{"_step": 2}]),
            )
            for step in steps[self.acknowledged :]:
                step()
                self.acknowledged += 1

    def check(self, backend: BackendProcess) -> None:
        """Fail if anything acknowledged is missing, doubled or different."""
        with Wire(backend) as wire:
            if self.acknowledged >= 2:
                assert wire.run_files(RUN) == {"model.bin": CONTENT}
            if self.acknowledged >= 3:
                steps = [row["_step"] for row in wire.history(RUN)]
                assert steps in ([0, 1], [0, 1, 2])
                assert len(steps) == 3 or self.acknowledged < 5
            if self.acknowledged >= 4:
                versions = wire.versions("struck")
                assert [version["files"] for version in versions.values()] == [FILES]
                assert versions[0]["aliases"] == {"latest"}


def _strike(data_dir: Path, call: str, number: int) -> None:
    backend, story = BackendProcess(data_dir), Story()
    backend.start()
    try:
        assert backend.process
        with injected(backend.process.pid, call, "signal=KILL", when=str(number)):
            try:
                story.tell(backend)
            except httpx.TransportError:
                assert backend.process.wait(20) == -9
        backend.kill()
        audit(data_dir, settled=False)
        backend.start()
        audit(data_dir)
        story.check(backend)
        story.tell(backend)
        assert story.acknowledged == 5
        story.check(backend)
    finally:
        if backend.process is not None:
            backend.stop()
    audit(data_dir)


@pytest.mark.parametrize(("call", "number"), CHOSEN)
def test_kill_at_a_call(tmp_path: Path, call: str, number: int) -> None:
    require_strace()
    _strike(tmp_path / "data", call, number)


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("call", COUNTS)
def test_kill_at_every_call(tmp_path: Path, call: str) -> None:
    require_strace()
    for number in range(1, COUNTS[call] + 1):
        _strike(tmp_path / str(number), call, number)


@pytest.mark.parametrize(
    ("calls", "fault", "numbers"),
    [
        ("fsync", "error=EIO", (1, 2, 3)),
        ("fdatasync", "error=EIO", (1,)),
        ("rename", "error=EIO", (1,)),
        ("pwrite64", "error=EIO", (1, 5)),
        ("pwrite64", "error=ENOSPC", (2,)),
        ("mkdir", "error=ENOSPC", (1,)),
    ],
)
def test_an_input_output_error_reaches_the_client(
    backend: BackendProcess, calls: str, fault: str, numbers: tuple[int, ...]
) -> None:
    """The client is told, nothing stays half done, and the same request then succeeds."""
    require_strace()
    assert backend.process
    with Wire(backend) as wire:
        wire.start_run(RUN)
        for number in numbers:
            content = CONTENT + bytes([number])
            name = f"{number}.bin"
            url = wire.file_url(RUN, name)
            with injected(backend.process.pid, calls, fault, when=str(number)):
                with pytest.raises(RefusedError) as refused:
                    wire.put(url, content)
                assert refused.value.status in (503, 507)
            audit(backend.data_dir)
            assert name not in wire.run_files(RUN)
            wire.put(url, content)
            assert wire.run_files(RUN)[name] == content
    audit(backend.data_dir)


def test_bytes_are_safe_before_they_are_promised(backend: BackendProcess, tmp_path: Path) -> None:
    """Power loss may undo whatever was not synced: so sync, rename, sync, commit, answer."""
    require_strace()
    assert backend.process
    with Wire(backend) as wire:
        wire.start_run(RUN)
        url = wire.file_url(RUN, "model.bin")
        log = tmp_path / "calls"
        calls = "openat,write,pwrite64,fsync,fdatasync,rename,close,unlink"
        with traced(backend.process.pid, calls, log):
            wire.put(url, CONTENT)
    lines = [re.sub(r"^\d+ +", "", line) for line in log.read_text().splitlines()]
    temporary = _number(lines, r"openat\(.*/incoming/\w+\", O_WRONLY.* = (\d+)$")
    order = [
        rf"write\({temporary}, .*\) = {len(CONTENT)}$",
        rf"fsync\({temporary}\) += 0$",
        r"rename\(.*/incoming/.*\) = 0$",
        r"openat\(.*/blobs/[0-9a-f]{2}\", O_RDONLY.* = \d+$",
        r"fsync\(\d+\) += 0$",
        r"fdatasync\(\d+\) += 0$",
        r'write\(\d+, "HTTP/1.1 200 OK',
    ]
    place = 0
    for step in order:
        matching = [i for i, line in enumerate(lines) if i >= place and re.search(step, line)]
        assert matching, f"{step} is missing after call {place} in:\n" + "\n".join(lines)
        place = matching[0] + 1
    answered = place
    assert not [line for line in lines[answered:] if line.startswith(("fsync", "fdatasync"))]


def _number(lines: list[str], pattern: str) -> str:
    found = [match[1] for line in lines if (match := re.search(pattern, line))]
    assert found, lines
    return found[0]
