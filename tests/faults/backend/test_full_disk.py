"""No space left: a clear error, nothing half stored, and all goes on when there is space."""

from __future__ import annotations

import hashlib
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.backend_process import run_flow
from tests.e2e.backend.interpreters import NEWEST
from tests.faults.backend.inspection import audit
from tests.faults.backend.small_disk import ConfinedBackend, SmallDisk, backend_on, small_disk
from tests.faults.backend.wire import RefusedError, Wire, md5_base64

MIB = 1 << 20
RUN = "cramped"
FULL = 507


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", 24 * MIB) as mounted:
        yield mounted


@pytest.fixture
def cramped(disk: SmallDisk) -> Iterator[ConfinedBackend]:
    with backend_on(disk) as backend:
        with Wire(backend) as wire:
            wire.start_run(RUN)
        yield backend


def _settle(wire: Wire) -> None:
    """Let the database's log grow and start over, so that small commits need no new space."""
    for part in range(6):
        rows = [{"_step": part, "text": "x" * 900_000}]
        wire.stream("settled", part, rows)


@pytest.mark.parametrize("size_bytes", [MIB // 2, 3 * MIB])
@pytest.mark.parametrize("leave_bytes", [0, 300_000])
def test_an_upload_that_does_not_fit(
    disk: SmallDisk, cramped: ConfinedBackend, leave_bytes: int, size_bytes: int
) -> None:
    """Half of the last piece fits: what the disk took of it must not count as the file."""
    content = bytes(range(256)) * (size_bytes // 256)
    with Wire(cramped) as wire:
        wire.start_run("settled")
        _settle(wire)
        wire.save_file(RUN, "before.bin", b"before")
        url = wire.file_url(RUN, "large.bin")
        disk.fill(leave_bytes)
        for headers in ({}, {"Content-MD5": md5_base64(content)}):
            with pytest.raises(RefusedError, match="full") as refused:
                wire.put(url, content, **headers)
            assert refused.value.status == FULL
            assert disk.free_bytes >= leave_bytes - 4096
        audit(cramped.data_dir)
        assert wire.run_files(RUN) == {"before.bin": b"before"}
        disk.empty()
        wire.put(url, content)
        assert wire.run_files(RUN) == {"before.bin": b"before", "large.bin": content}
    audit(cramped.data_dir)


def test_space_that_ends_at_every_step(disk: SmallDisk, cramped: ConfinedBackend) -> None:
    """However much is left, a write is there whole or not at all, and the answer says which."""
    steps: list[int] = []
    answers: list[int] = []
    with Wire(cramped) as wire:
        for pages in range(0, 24, 2):
            content = hashlib.sha256(bytes([pages])).digest() * 640  # 20 KiB, 5 pages
            url = wire.file_url(RUN, f"{pages}.bin")
            disk.fill(pages * 4096)
            kept = _status(lambda: wire.put(url, content))  # noqa: B023 - called at once
            row = {"_step": pages, "text": "x" * 9000}
            streamed = _status(lambda: wire.stream(RUN, len(steps), [row]))  # noqa: B023
            assert {kept, streamed} <= {200, FULL}
            answers += [kept, streamed]
            steps += [pages] if streamed == 200 else []
            audit(cramped.data_dir)
            disk.empty()
            files = wire.run_files(RUN)
            assert files.get(f"{pages}.bin") == (content if kept == 200 else None)
            assert [row["_step"] for row in wire.history(RUN)] == steps
    assert set(answers) == {200, FULL}


def _status(request: Callable[[], object]) -> int:
    try:
        request()
    except RefusedError as error:
        return error.status
    return 200


def test_the_database_cannot_grow(disk: SmallDisk, cramped: ConfinedBackend) -> None:
    rows = [{"_step": step, "text": "x" * 1000} for step in range(800)]
    with Wire(cramped) as wire:
        wire.stream(RUN, 0, rows[:10])
        disk.fill()
        with pytest.raises(RefusedError, match="full") as refused:
            wire.stream(RUN, 10, rows[10:])
        assert refused.value.status == FULL
        with pytest.raises(RefusedError, match="full") as refused:
            wire.start_run("another", config='{"a": "' + "x" * 500_000 + '"}')
        assert refused.value.status == FULL
        assert wire.history(RUN) == rows[:10]
        audit(cramped.data_dir)
        disk.empty()
        wire.stream(RUN, 10, rows[10:])
        assert wire.history(RUN) == rows
    cramped.kill()
    cramped.start()
    with Wire(cramped) as wire:
        assert wire.history(RUN) == rows
    audit(cramped.data_dir)


def test_a_version_that_does_not_fit(disk: SmallDisk, cramped: ConfinedBackend) -> None:
    small = {"small.txt": b"small"}
    large = {"large.bin": bytes(range(256)) * 8192, "small.txt": b"small"}
    with Wire(cramped) as wire:
        wire.log_artifact("model", small)
        draft = wire.begin("model", large)
        disk.fill(MIB)
        with pytest.raises(RefusedError, match="full"):
            wire.upload_files(draft)
        with pytest.raises(RefusedError, match=r"no manifest|not uploaded"):
            wire.commit(draft)
        audit(cramped.data_dir)
        assert [version["files"] for version in wire.versions("model").values()] == [small]
        disk.empty()
        wire.upload_files(draft)
        wire.upload_manifest(draft)
        wire.commit(draft)
        assert [v["files"] for _, v in sorted(wire.versions("model").items())] == [small, large]
    audit(cramped.data_dir)


def test_parts_that_cannot_be_joined(disk: SmallDisk, cramped: ConfinedBackend) -> None:
    """The parts stay until the whole is stored: nothing has to be sent again."""
    content = bytes(range(256)) * 8192
    pieces = [content[:MIB], content[MIB:]]
    numbered = [
        {"partNumber": n, "hexMD5": hashlib.md5(piece).hexdigest()}
        for n, piece in enumerate(pieces, 1)
    ]
    with Wire(cramped) as wire:
        draft = wire.begin("joined", {"whole.bin": content})
        [target] = wire.file_targets(draft, ["whole.bin"], {"whole.bin": numbered})
        for part in target["uploadMultipartUrls"]["uploadUrlParts"]:
            wire.put(part["uploadUrl"], pieces[part["partNumber"] - 1])
        disk.fill(MIB)
        with pytest.raises(RefusedError, match="full"):
            wire.complete_multipart(draft, target, numbered)
        audit(cramped.data_dir)
        disk.empty()
        wire.complete_multipart(draft, target, numbered)
        wire.upload_manifest(draft)
        wire.commit(draft)
        assert wire.versions("joined")[0]["files"] == {"whole.bin": content}
    audit(cramped.data_dir)


def test_a_start_on_a_full_disk(disk: SmallDisk, cramped: ConfinedBackend) -> None:
    """Old data are served if that takes no space; a new folder is refused with the reason."""
    with Wire(cramped) as wire:
        wire.save_file(RUN, "kept.txt", b"kept")
    cramped.kill()
    disk.fill()
    fresh = ConfinedBackend(disk.outside / "fresh", disk=disk).command()
    refused = subprocess.run(fresh, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode not in (0, None)
    assert "Traceback" not in refused.stderr
    assert "error:" in refused.stderr
    disk.empty()
    cramped.start()
    with Wire(cramped) as wire:
        assert wire.run_files(RUN) == {"kept.txt": b"kept"}
    audit(cramped.data_dir)


def test_the_sdk_waits_for_space(disk: SmallDisk, cramped: ConfinedBackend, tmp_path: Path) -> None:
    """The unmodified SDK repeats what was refused, and nothing is lost once there is space."""
    script = Path(__file__).parent / "flows" / "waits_for_space.py"
    started, full, refused = (tmp_path / name for name in ("started", "full", "refused"))

    def fill_and_empty() -> None:
        _wait_for(started)
        disk.fill()
        full.touch()
        _wait_for(refused)
        disk.empty()

    filler = threading.Thread(target=fill_and_empty)
    filler.start()
    try:
        run_flow(cramped, NEWEST, script, tmp_path, str(started), str(full), str(refused))
    finally:
        filler.join()
    with Wire(cramped) as wire:
        assert [row["loss"] for row in wire.history("waits", "space")] == list(range(50))
        assert wire.run_files("waits", "space")["saved.bin"] == b"s" * 200_000
    audit(cramped.data_dir)


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
