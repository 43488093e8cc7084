"""The command line: parse, call, print, exit code; nothing else.

`main` is the entry point of both `registry` and `runport`. Commands are loaded
only when they are named, so that `--help` stays quick: each lives in a module
of its own that exposes a click command named `command`. Neither this module nor
`registry.cli.warm` imports click, so that a cached version is answered before it is loaded.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from registry.cli.frame import cli as cli
    from registry.cli.frame import load_command as load_command

COMMANDS: dict[str, tuple[str, str]] = {
    "backend": ("registry.cli.backend", "Run the embedded W&B-compatible backend."),
    "cache": ("registry.cli.cache", "Show, prune and pin what is in the cache."),
    "completion": ("registry.cli.completion", "Complete commands and names in the shell."),
    "diff": ("registry.cli.diff", "Compare two versions: files, configuration, metrics."),
    "doctor": ("registry.cli.doctor", "Check that this machine is ready, and say what is not."),
    "export": ("registry.cli.export", "Make a version fast: ONNX with a parity report."),
    "inspect": ("registry.cli.inspect", "Show what is known about a collection or version."),
    "key": ("registry.cli.key", "Make an API key for a server."),
    "list": ("registry.cli.list", "List model collections and their versions."),
    "predict": ("registry.cli.predict", "Ask a running server for a prediction."),
    "promote": ("registry.cli.promote", "Move an alias, by metric or by name."),
    "pull": ("registry.cli.pull", "Fetch a version, verified, into the cache."),
    "push": ("registry.cli.push", "Log a folder as a version."),
    "rollback": ("registry.cli.rollback", "Undo the last move of an alias."),
    "serve": ("registry.cli.serve", "Answer predictions over HTTP."),
    "tune": ("registry.cli.tune", "Find the fastest engine within an accuracy budget."),
    "verify": ("registry.cli.verify", "Hash what is cached again, and repair it."),
}
"""Command name -> (module, one-line help shown before the module is imported)."""

_FRAME = ("cli", "load_command")


def __getattr__(name: str) -> Any:
    if name not in _FRAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("registry.cli.frame"), name)


def main() -> None:
    """Run the command line and exit with its documented status."""
    from registry.cli.warm import answer

    if answer(sys.argv[1:]):
        _leave(0)
    from registry.cli.frame import cli
    from registry.cli.output import run_guarded

    status = run_guarded(lambda: cli.main(standalone_mode=False, prog_name=_program_name()))
    _leave(status)


def _leave(status: int) -> NoReturn:
    """Exit; quietly also where the reader of stdout has gone (`registry list | head -1`)."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more at exit, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


def _program_name() -> str:
    name = os.path.basename(sys.argv[0])
    return name if name in {"registry", "runport"} else "registry"
