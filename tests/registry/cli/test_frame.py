"""The command line's frame: help, versions, exit codes, and what it does not import."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from registry.cli import COMMANDS, load_command
from registry.cli.output import run_guarded
from registry.errors import RegistryError


def registry(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "registry", *arguments], capture_output=True, text=True, check=False
    )


def test_help_lists_every_command_with_its_summary() -> None:
    done = registry("--help")
    assert done.returncode == 0
    for name, (_, summary) in COMMANDS.items():
        assert name in done.stdout
        assert summary.split()[0] in done.stdout


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys, json\n"
        "from registry.cli import cli\n"
        "cli.main(['--help'], standalone_mode=False)\n"
        "print('MODULES', json.dumps(sorted(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    loaded = set(json.loads(done.stdout.split("MODULES ")[1]))
    heavy = {"wandb", "torch", "transformers", "onnxruntime", "litestar", "httpx", "numpy"}
    assert not loaded & heavy


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_loads_and_has_help(name: str) -> None:
    command = load_command(name)
    assert command.help
    done = registry(name, "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_a_misspelt_command_is_a_usage_error_with_a_guess() -> None:
    done = registry("promot")
    assert done.returncode == 2
    assert "Did you mean 'promote'?" in done.stderr


def test_version_is_the_packages_own() -> None:
    done = registry("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("runport ")


def all_errors(root: type[RegistryError] = RegistryError) -> list[type[RegistryError]]:
    return [root, *(one for child in root.__subclasses__() for one in all_errors(child))]


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.__name__)
def test_every_error_ends_with_its_status_and_its_hint(
    kind: type[RegistryError], capsys: pytest.CaptureFixture[str]
) -> None:
    def action() -> None:
        raise kind("what happened", hint="what to do")

    assert run_guarded(action) == kind.exit_code
    said = capsys.readouterr()
    assert said.out == ""
    assert "what happened" in said.err
    assert "what to do" in said.err


def test_codes_are_unique() -> None:
    codes = [kind.code for kind in all_errors()]
    assert len(codes) == len(set(codes))


def test_interrupt_is_130() -> None:
    def action() -> None:
        raise KeyboardInterrupt

    assert run_guarded(action) == 130


def test_a_closed_pipe_ends_quietly() -> None:
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m registry --help | true"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert "Error" not in done.stderr
