"""`make demo`, whole: the commands a newcomer sees, none of them faked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(420)
def test_the_whole_road(tmp_path: Path) -> None:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("WANDB_", "RUNPORT_"))
    }
    done = subprocess.run(
        [sys.executable, "-m", "demo"],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(ROOT), "COLUMNS": "160"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    page = done.stdout.split("Runport: the whole road")[1]
    assert "run-bert:v0" in page
    assert "run-bert:v1" in page
    failed = next(line for line in page.splitlines() if "failed" in line)
    assert failed.split()[-2] == "0" or " 0 " in failed
    assert list((tmp_path / ".demo").iterdir()) == []
