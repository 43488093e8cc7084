"""Keep the reporter process running."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import msgspec


class ReporterCommand(msgspec.Struct, frozen=True):
    """How to start the reporter.

    Attributes:
        argv: the command; `--spool DIR` is appended.
        environment: the child's whole environment (W&B's address and key travel in it).
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]

    @classmethod
    def for_this_python(cls, environment: Mapping[str, str]) -> ReporterCommand:
        """Return the command that runs `serving.telemetry.reporter` in this interpreter."""
        return cls((sys.executable, "-m", "serving.telemetry.reporter"), environment)
