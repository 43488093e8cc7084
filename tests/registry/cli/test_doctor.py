"""doctor against a real backend, and where something is wrong."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from registry.doctor import Check, Diagnosis, check_cache_folder, check_locks
from tests.registry.cli.conftest import Shell


def found(shell: Shell, status: int = 0, **extra: str) -> dict[str, Check]:
    there = Shell(shell.environment, shell.folder, extra)
    diagnosis = there.json(Diagnosis, "doctor", status=status)
    assert isinstance(diagnosis, Diagnosis)
    return {check.name: check for check in diagnosis.checks}


def test_all_is_well(shell: Shell) -> None:
    checks = found(shell)
    assert {
        name: check.status for name, check in checks.items() if name != "disk"
    } == dict.fromkeys(
        ("runport", "sdk", "host", "login", "cache", "locks", "engines", "export"), "ok"
    )
    assert "local" in checks["login"].detail
    assert "logged in" in shell.ok("doctor")


def test_a_wrong_key_is_four(shell: Shell) -> None:
    checks = found(shell, 4, WANDB_API_KEY="0" * 40)
    assert checks["login"].status == "failed"
    assert "WANDB_API_KEY" in checks["login"].hint


def test_no_server_is_seven(shell: Shell) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # Bound but not listening: refused.
        checks = found(shell, 7, WANDB_BASE_URL=f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert (checks["host"].status, checks["login"].status) == ("failed", "skipped")


def test_offline_asks_nobody(shell: Shell) -> None:
    checks = found(shell, WANDB_BASE_URL="http://127.0.0.1:9", RUNPORT_OFFLINE="1")
    assert (checks["host"].status, checks["login"].status) == ("skipped", "skipped")


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert check_cache_folder(tmp_path / "cache").exit_code == 7


def test_a_cache_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert check_cache_folder(tmp_path / "file" / "cache").exit_code == 7


def test_a_folder_open_to_others(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    check = check_cache_folder(tmp_path)
    assert (check.status, check.hint) == ("warning", f"chmod go-w {tmp_path}")


def test_locks_that_do_nothing_are_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert check_locks(tmp_path).status == "ok"
    monkeypatch.setattr("fcntl.flock", lambda *_: None)
    assert check_locks(tmp_path).status == "warning"
    assert list(tmp_path.iterdir()) == []
