"""The README says what the program does: commands, exit statuses, routes, variables."""

from __future__ import annotations

import re
from pathlib import Path

from registry.cli import COMMANDS
from registry.errors import RegistryError

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def sources(*packages: str) -> str:
    return "\n".join(
        path.read_text("utf-8") for package in packages for path in (ROOT / package).rglob("*.py")
    )


def test_the_table_of_commands_is_the_command_line_s_own() -> None:
    table = dict(re.findall(r"^\| `registry ([a-z-]+)` \| (.+?) \|$", README, re.MULTILINE))
    assert table == {name: summary for name, (_, summary) in COMMANDS.items()}


def test_every_exit_status_is_listed() -> None:
    listed = {int(status) for status in re.findall(r"^\| (\d+) \| ", README, re.MULTILINE)}
    kinds = [RegistryError]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
    assert {kind.exit_code for kind in kinds} <= listed


def test_every_variable_of_ours_is_listed_and_exists() -> None:
    code = sources("registry", "serving")
    used = set(re.findall(r"\bRUNPORT_[A-Z_]+[A-Z]\b", code))
    documented = set(re.findall(r"\bRUNPORT_[A-Z_]+[A-Z]\b", README))
    documented |= {
        name
        for page in (ROOT / "docs").glob("*.md")
        for name in re.findall(r"\bRUNPORT_[A-Z_]+[A-Z]\b", page.read_text("utf-8"))
    }
    assert used <= documented
    assert set(re.findall(r"\bRUNPORT_[A-Z_]+[A-Z]\b", README)) <= used


def test_every_make_target_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for line in re.findall(r"^    make ([a-z ]+?)(?:  |$)", README, re.MULTILINE):
        assert set(line.split()) <= targets


def test_linked_files_exist() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (ROOT / target).exists(), target


def test_every_served_route_is_listed() -> None:
    routes = set(re.findall(r'^@(?:get|post|put|delete)\("([^"]+)"', sources("serving"), re.M))
    for route in routes:
        assert re.sub(r"\{name:str\}", "NAME", route) in README, route
