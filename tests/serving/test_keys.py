from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import ConfigError
from serving.keys import KeyRing, make_key


def test_a_key_opens_its_scopes_and_nothing_else_does(tmp_path: Path) -> None:
    text, stored = make_key(frozenset({"predict"}))
    other, _ = make_key(frozenset({"admin"}))
    file = tmp_path / "keys"
    file.write_text(f"# made today\n\n{stored.line()}\n", "utf-8")
    ring = KeyRing.read(file)
    assert ring.scopes(text) == {"predict"}
    assert text not in file.read_text("utf-8")
    for wrong in (
        other,
        text[:-1],
        text + "x",
        text.upper(),
        "",
        f"rp_{stored.id}_",
        stored.sha256,
    ):
        assert ring.scopes(wrong) == frozenset()


def test_no_two_keys_are_alike() -> None:
    assert len({make_key(frozenset({"read"}))[0] for _ in range(50)}) == 50


@given(st.text())
def test_no_other_text_opens_anything(text: str) -> None:
    _, stored = make_key(frozenset({"read"}))
    assert KeyRing([stored]).scopes(text) == frozenset()


@pytest.mark.parametrize(
    "content",
    ["", "# nothing\n", "id:zz:read", f"id:{'a' * 64}", f"id:{'a' * 64}:", f"id:{'a' * 64}:root"],
)
def test_broken_key_files_are_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "keys"
    file.write_text(content, "utf-8")
    with pytest.raises(ConfigError) as caught:
        KeyRing.read(file)
    assert caught.value.hint
    with pytest.raises(ConfigError):
        KeyRing.read(tmp_path / "missing")
