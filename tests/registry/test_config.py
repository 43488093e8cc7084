from __future__ import annotations

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
