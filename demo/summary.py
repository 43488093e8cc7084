"""One page with the numbers that the demo measured and the addresses to look at."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from demo.traffic import Tally


@dataclass
class Outcome:
    """What the steps measured; filled in as they are walked."""

    backend_url: str = ""
    api_key: str = ""
    url: str = ""
    timings_s: dict[str, float] = field(default_factory=dict)
    export: dict[str, Any] = field(default_factory=dict)
    promotion: dict[str, Any] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    seconds_to_swap: float = 0.0
    reported: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    @contextlib.contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Keep how long the block took, in seconds, as `step`."""
        started = time.monotonic()
        yield
        self.timings_s[step] = time.monotonic() - started


def print_summary(console: Console, outcome: Outcome) -> None:
    """Print the page."""
    console.rule("[bold]Runport: the whole road")
    steps = Table("step", "seconds", title="Time", title_justify="left")
    for step, seconds in outcome.timings_s.items():
        steps.add_row(step, f"{seconds:.1f}")
    steps.add_row("promotion to first answer of v1", f"{outcome.seconds_to_swap:.1f}")
    steps.add_row("everything", f"{outcome.seconds:.1f}")
    console.print(steps)
    _print_requests(console, outcome)
    _print_reported(console, outcome)
    addresses = {
        "Runs and artifacts": outcome.backend_url,
        **{f"Reported for {run['used'][0]}": run["url"] for run in outcome.reported},
        "Predictions": f"{outcome.url}/models/bert",
        "Prometheus": f"{outcome.url}/metrics",
    }
    for what, address in addresses.items():
        console.print(f"{what:28} {address}", highlight=False, soft_wrap=True)


def _print_requests(console: Console, outcome: Outcome) -> None:
    table = Table("version", "answers", title="Requests during the promotion", title_justify="left")
    for version, count in sorted(outcome.tally.versions.items()):
        table.add_row(version, str(count))
    table.add_row("failed", str(len(outcome.tally.failures)))
    console.print(table)


def _print_reported(console: Console, outcome: Outcome) -> None:
    title = "Reported to W&B (job_type inference)"
    table = Table("version", "requests", "errors", "p50 ms", "p95 ms", title=title)
    table.title_justify = "left"
    for run in outcome.reported:
        version = ", ".join(run["used"])
        latency = [f"{run[key]:.1f}" if run[key] else "-" for key in ("p50_ms", "p95_ms")]
        table.add_row(version, str(run["requests"]), str(run["errors"]), *latency)
    console.print(table)
