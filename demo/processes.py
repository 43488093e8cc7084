"""Run commands for the demo: in the foreground shown to the reader, or as servers."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console


class StepError(Exception):
    """A step of the demo failed; the message says which and shows the end of its log."""


@dataclass(frozen=True)
class Server:
    """A process that keeps running, and where it writes its log."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def stop(self, timeout_s: float = 30) -> int:
        """Ask it to end, wait, and return its exit status; kill it past the bound."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise StepError(f"{self.name} did not stop within {timeout_s:.0f} s.") from None


class Shell:
    """Runs commands with one environment, as a user would type them."""

    def __init__(self, console: Console, folder: Path, environment: Mapping[str, str]) -> None:
        self._console = console
        self._folder = folder
        self._environment = {**os.environ, **environment}

    def export(self, variables: Mapping[str, str]) -> None:
        """Add environment variables for all later commands."""
        self._environment.update(variables)

    def run(self, *command: str, quiet: bool = False) -> str:
        """Run a command to its end, show it, and return what it wrote on stdout.

        Raises:
            StepError: it ended with another status than 0.
        """
        self._console.print(f"[bold cyan]$[/] {_shown(command)}", highlight=False, soft_wrap=True)
        log = self._log(command)
        with log.open("wb") as errors:
            done = subprocess.run(
                _program(command),
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                check=False,
            )
        output = done.stdout.decode(errors="replace")
        if done.returncode != 0:
            tail = (output + log.read_text(errors="replace"))[-3000:]
            raise StepError(f"`{_shown(command)}` ended with status {done.returncode}:\n{tail}")
        if not quiet and output.strip():
            self._console.print(output.rstrip(), highlight=False, soft_wrap=True, style="dim")
        return output

    def serve(self, name: str, *command: str, ready: Callable[[], bool], within_s: float) -> Server:
        """Start a command that keeps running and wait until `ready()` is true.

        Raises:
            StepError: it ended, or was not ready in time.
        """
        self._console.print(f"[bold cyan]$[/] {_shown(command)} &", highlight=False, soft_wrap=True)
        log = self._folder / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                _program(command),
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Its own session: Ctrl-C ends the demo, which then ends the
                # servers in order; with KEEP=1 they outlive it.
                start_new_session=True,
            )
        server = Server(name, process, log)
        deadline = time.monotonic() + within_s
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                state = "ended" if process.poll() is not None else "was not ready in time"
                tail = log.read_text(errors="replace")[-3000:]
                if process.poll() is None:
                    server.stop()
                raise StepError(f"{name} {state}:\n{tail}")
            time.sleep(0.1)
        return server

    def _log(self, command: tuple[str, ...]) -> Path:
        words = [word for word in command[:3] if word.isalnum()]
        return self._folder / f"{'-'.join(words) or 'step'}.log"


def _program(command: tuple[str, ...]) -> list[str]:
    """Take `python` and `registry` from this environment, whatever PATH says."""
    if command[0] == "python":
        return [sys.executable, *command[1:]]
    if command[0] == "registry":
        return [sys.executable, "-m", "registry", *command[1:]]
    return list(command)


def _shown(command: tuple[str, ...]) -> str:
    return shlex.join(command)
