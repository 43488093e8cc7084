"""A data folder that was damaged from outside: said plainly, never made worse."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from tests.backend_process import REPOSITORY, BackendProcess
from tests.faults.backend.inspection import audit
from tests.faults.backend.wire import RefusedError, Wire


def _refused_start(backend: BackendProcess) -> str:
    done = subprocess.run(
        backend.command(), cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 7
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("content", [b"no database at all" * 1000, b"SQLite format 3\0" * 300])
def test_a_damaged_database_is_left_alone(tmp_path: Path, content: bytes) -> None:
    backend = BackendProcess(tmp_path / "data")
    backend.start()
    backend.stop()
    path = backend.data_dir / "backend.sqlite3"
    path.write_bytes(content)
    assert "database" in _refused_start(backend)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[]",
        "not json",
        json.dumps({"api_key": "", "signing_secret": ""}),
        json.dumps({"api_key": "short", "signing_secret": "00" * 32}),
        json.dumps({"api_key": "k" * 40, "signing_secret": "no hex"}),
    ],
)
def test_damaged_credentials_let_nobody_in(tmp_path: Path, content: str) -> None:
    backend = BackendProcess(tmp_path / "data")
    backend.data_dir.mkdir()
    path = backend.data_dir / "credentials.json"
    path.write_text(content)
    assert "credentials" in _refused_start(backend)
    assert path.read_text() == content


def test_a_lost_blob_is_said_and_healed(backend: BackendProcess) -> None:
    """Its file cannot be fetched, all others can; logging the file again brings it back."""
    lost, kept = b"lost" * 1000, b"kept"
    with Wire(backend) as wire:
        wire.log_artifact("model", {"lost.bin": lost, "kept.bin": kept})
    sha256 = hashlib.sha256(lost).hexdigest()
    (backend.data_dir / "blobs" / sha256[:2] / sha256).unlink()
    backend.stop()
    backend.start()
    with Wire(backend) as wire:
        with pytest.raises(RefusedError) as refused:
            wire.versions("model")
        assert refused.value.status == 404
        draft = wire.begin("model", {"lost.bin": lost, "more.bin": b"more"})
        wire.upload_files(draft)
        wire.upload_manifest(draft)
        wire.commit(draft)
        versions = wire.versions("model")
    assert versions[0]["files"] == {"lost.bin": lost, "kept.bin": kept}
    assert versions[1]["files"] == {"lost.bin": lost, "more.bin": b"more"}
    audit(backend.data_dir)
