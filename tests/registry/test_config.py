from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest

from registry.config import Settings


@pytest.mark.parametrize("folder", ["", "  ", "/elsewhere", "relative/folder"])
def test_default_folders_are_those_of_the_platform(
    monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", folder)
    monkeypatch.setenv("XDG_DATA_HOME", folder)
    settings = Settings.from_environment({})
    assert settings.cache_dir == platformdirs.user_cache_path("runport")
    assert settings.data_dir == platformdirs.user_data_path("runport")


def test_folders_that_are_set_win() -> None:
    settings = Settings.from_environment({"RUNPORT_CACHE_DIR": "/a", "RUNPORT_DATA_DIR": "/b"})
    assert (settings.cache_dir, settings.data_dir) == (Path("/a"), Path("/b"))


@pytest.mark.parametrize(
    ("near", "far", "server"),
    [
        ("", "[default]\nbase_url = https://w.example/\n", "https://w.example"),
        ("[default]\nBASE_URL: http://near:1\n", "[default]\nbase_url = http://far:1", "http://near:1"),
        ("", "[default]\nmode = online\n[other]\nbase_url = http://other", None),
        ("", "[default]\nbase_url = https://api.wandb.ai\n", None),
        ("", "\x00 nonsense [", None),
        ("", "", None),
    ],
)  # fmt: skip
def test_the_server_is_the_one_that_the_sdk_would_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, near: str, far: str, server: str | None
) -> None:
    home = tmp_path / "home"
    for folder, text in ((tmp_path / "wandb", near), (home / ".config" / "wandb", far)):
        folder.mkdir(parents=True)
        (folder / "settings").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert Settings.from_environment({"HOME": str(home)}).base_url == server
    said = {"HOME": str(home), "WANDB_BASE_URL": "http://said:1"}
    assert Settings.from_environment(said).base_url == "http://said:1"


def test_a_login_on_another_host_is_read_as_the_sdk_wrote_it(tmp_path: Path) -> None:
    script = (
        "import wandb.sdk.lib.settings_file as files, pathlib, sys\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "paths = {'global_settings': folder / 'settings', 'local_settings': folder / 'x'}\n"
        "made = files.SettingsFiles(**paths)\n"
        "made.set('base_url', 'http://127.0.0.1:8090', globally=True)\n"
        "made.save()\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=60)
    settings = Settings.from_environment({"WANDB_CONFIG_DIR": str(tmp_path)})
    assert settings.base_url == "http://127.0.0.1:8090"
