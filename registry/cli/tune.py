"""`registry tune`: measure how a version is served best on this machine, and keep the answer."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from registry.cli.completion import complete_name
from registry.cli.output import json_errors, json_option, quiet_option, result, result_json, say

if TYPE_CHECKING:
    from registry.pulled import PulledVersion
    from registry.tuning import Tuning, TuningRow

_TABLE_WIDTH = 124


@click.command()
@click.argument("name", shell_complete=complete_name)
@click.option(
    "--budget",
    type=float,
    metavar="SHARE",
    help="Largest share of answers that may differ from fp32's.  [default: 0.005]",
)
@click.option(
    "--objective",
    type=click.Choice(["throughput", "latency", "memory"]),
    default="throughput",
    show_default=True,
    help="What the winner is best at.",
)
@click.option(
    "--candidate",
    "candidates",
    multiple=True,
    metavar="NAME",
    help="Measure this one, such as openvino/bf16, beside fp32; several times for several.",
)
@click.option(
    "--samples",
    type=click.Path(dir_okay=False, path_type=Path),
    help="JSON lines of texts to measure on; default: the version's samples.jsonl, else drawn.",
)
@click.option("--task", help="What the model answers; default: as metadata or architecture say.")
@click.option(
    "--seconds",
    type=float,
    metavar="N",
    help="About how long each candidate is timed in each layout.  [default: 8]",
)
@click.option("--dry-run", is_flag=True, help="Say what would be measured; measure nothing.")
@json_option
@quiet_option
def command(
    name: str,
    budget: float | None,
    objective: str,
    candidates: tuple[str, ...],
    samples: Path | None,
    task: str | None,
    seconds: float | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure engines, precisions and thread layouts on a version; `registry serve` uses the best.

    NAME is as for `registry pull`. Every candidate runs in the real worker, in turn with the
    others; the winner is the fastest whose answers stay within the budget and do not depend on
    what shares a batch. The measurement is kept in the cache, for this machine and its tools.
    """
    from registry.cache import hold
    from registry.config import Settings
    from registry.export import task_in
    from registry.pull import pull
    from serving.config import process_environment
    from serving.tune.tune import DEFAULT_BUDGET, DEFAULT_SECONDS, TuneRequest, tune

    with json_errors(as_json):
        settings = Settings.from_environment()
        values: dict[str, Any] = {
            "budget": DEFAULT_BUDGET if budget is None else budget,
            "objective": objective,
            "named": candidates,
            "samples": samples,
            "seconds": DEFAULT_SECONDS if seconds is None else seconds,
        }
        # A mistyped value is told before anything is fetched.
        TuneRequest(Path(), "", settings.cache_dir, **values).check()
        pulled = pull(name, settings=settings)
        request = TuneRequest(
            pulled.path,
            pulled.digest,
            settings.cache_dir,
            task=task or task_in(pulled.version.metadata),
            environment=process_environment(),
            **values,
        )
        with hold(pulled.digest, settings=settings) or nullcontext():
            if dry_run:
                _print_plan(pulled, request, as_json=as_json)
                return
            tuning = tune(request, lambda text: say(text, quiet=quiet))
    if as_json:
        result_json(document(pulled, tuning))
        return
    _print_table(pulled, tuning, quiet=quiet)


def document(pulled: PulledVersion, tuning: Tuning) -> dict[str, Any]:
    """Return what `--json` prints: the measurement, and the winner once more by itself."""
    import msgspec

    facts: dict[str, Any] = msgspec.to_builtins(tuning)
    winner = msgspec.to_builtins(tuning.winner)
    return {"name": pulled.version.qualified_name, "winner": winner, **facts}


def _print_plan(pulled: PulledVersion, request: Any, *, as_json: bool) -> None:
    from serving.tune.plan import plan

    plans = plan(request)
    if as_json:
        result_json({"name": pulled.version.qualified_name, "dry_run": True, "candidates": plans})
        return
    for one in plans:
        ways = ", ".join(one.layouts)
        result(f"{one.name:20} {one.state}{f': {ways}' if ways else ''}")


def _print_table(pulled: PulledVersion, tuning: Tuning, *, quiet: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{pulled.version.qualified_name}  {tuning.task}", title_justify="left")
    table.add_column("candidate", no_wrap=True)
    table.add_column("layout", no_wrap=True)
    for title in ("items/s", "ratio", "p50 ms", "p95 ms", "MB", "differ", "score", "in batches"):
        table.add_column(title, justify="right", no_wrap=True)
    for index, row in enumerate(tuning.rows):
        if row.layout is not None:
            style = "bold" if index == tuning.chosen else None if row.eligible else "dim"
            table.add_row(*_cells(row, chosen=index == tuning.chosen), style=style)
    # A narrow terminal wraps long lines; columns that are cut would show nothing.
    Console(width=max(Console().width, _TABLE_WIDTH)).print(table)
    for line in _notes(tuning):
        say(line, quiet=quiet)
    result(tuning.summary())


def _cells(row: TuningRow, *, chosen: bool) -> list[str]:
    def number(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    spread = f" ({number(row.speed_low, '.2f')}-{number(row.speed_high, '.2f')})"
    mates = "-" if row.batch_invariant is None else "same" if row.batch_invariant else "differ"
    grown = None if row.growth_bytes is None else row.growth_bytes / 1e6
    return [
        f"{'* ' if chosen else '  '}{row.name}",
        row.layout.words if row.layout else "",
        number(row.items_per_s, ".1f"),
        number(row.speed, ".2f") + (spread if row.speed else ""),
        number(row.latency_p50_ms, ".1f"),
        number(row.latency_p95_ms, ".1f"),
        number(grown, ".0f"),
        number(row.disagreement, ".2%"),
        number(row.max_score_diff, ".1e"),
        mates,
    ]


def _notes(tuning: Tuning) -> list[str]:
    lengths = tuning.lengths
    notes = [
        f"{tuning.inputs} inputs ({tuning.inputs_from}); tokens: median {lengths['p50']}, 95th "
        f"percentile {lengths['p95']}, at most {lengths['max']}",
        f"ratios to {tuning.reference} in the same round, up to {tuning.rounds} rounds; layout: "
        "engine threads x batches at once; MB: memory that came with the model",
        f"the machine's load was {tuning.load_before} before and {tuning.load_after} after; "
        f"{tuning.seconds:.0f} s",
    ]
    if tuning.load_after > int(tuning.machine["cores"]) + 1:
        notes.append("other work shared the machine: tune again when it is quiet to be sure")
    for row in tuning.rows:
        if row.reason:
            words = f" {row.layout.words}" if row.layout else ""
            notes.append(f"{row.name}{words}: {row.reason}")
    return [*notes, f"chosen: {tuning.why}"]
