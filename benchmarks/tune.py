"""Is what `registry tune` chose as fast as the best candidate, measured separately?

python -m benchmarks.tune [--model DIRECTORY] [--seconds N] [--rounds N] [--tiny]

Tunes a BERT-base classifier (random weights of the real shape, whose speed does not depend on their
values; or a model of yours), then starts every contender that could have been chosen in a process
of its own and measures its throughput again, in turn with the others, with other inputs than those
that the choice was made on. The figure is the chosen one's throughput against the best one's in the
same round, median of the rounds.

With random weights answers near a tie are many, and lossy precisions seldom stay within a budget:
`--budget` widens it so that the choice is between more than layouts.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
from pathlib import Path

from registry import Settings, Tuning, pull, tuned_export
from serving.config import CoreLimits, process_environment
from serving.tasks import open_task
from serving.tune.asking import SATURATION, ask, long_ones_first
from serving.tune.items import Inputs, draw_lengths, gather_inputs
from serving.tune.tune import TuneRequest, tune
from serving.worker.messages import WorkerPlan
from serving.worker.process import WorkerProcess, start_worker

_LOAD_TIMEOUT_S = 180.0
_INPUTS = 192


def make_model(directory: Path, *, tiny: bool) -> Path:
    """Write a classifier with random weights into `directory`."""
    from benchmarks.export import make_bert_base
    from tests.models import tiny_bert

    directory.mkdir()
    return tiny_bert(directory, labels=3) if tiny else make_bert_base(directory)


async def race(
    tuning: Tuning, folder: Path, exports_dir: Path, inputs: Inputs, rounds: int
) -> dict[int, list[float]]:
    """Return inputs per second in each round, by index of the eligible row."""
    workers: dict[int, WorkerProcess] = {}
    places = long_ones_first(range(len(inputs.items)), draw_lengths(len(inputs.items), 512))
    speeds: dict[int, list[float]] = {}
    try:
        for index, row in enumerate(tuning.rows):
            if not row.eligible or row.layout is None:
                continue
            export = tuned_export(exports_dir, row)
            layout = row.layout
            plan = WorkerPlan(
                directory=str(export.path if export else folder),
                task=tuning.task,
                engine=row.engine,
                engine_threads=layout.engine_threads,
                limits=CoreLimits(slots=layout.slots, max_batch_rows=layout.max_batch_rows),
            )
            workers[index] = await start_worker(
                row.name, plan, process_environment(), timeout_s=_LOAD_TIMEOUT_S
            )
        for number in range(rounds):
            order = list(workers) if number % 2 == 0 else list(reversed(workers))
            for index in order:
                client = workers[index].client
                await ask(client, inputs, places[:8], in_flight=1)
                done = await ask(client, inputs, places, in_flight=SATURATION)
                speeds.setdefault(index, []).append(len(places) / done.seconds)
    finally:
        await asyncio.gather(*(worker.stop(5.0) for worker in workers.values()))
    return speeds


def report(tuning: Tuning, speeds: dict[int, list[float]]) -> None:
    """Print each contender against the chosen one, and the figure."""
    chosen = speeds[tuning.chosen]
    for index, row in enumerate(tuning.rows):
        if index in speeds and row.layout is not None:
            ratios = [a / b for a, b in zip(speeds[index], chosen, strict=True)]
            mark = "*" if index == tuning.chosen else " "
            print(
                f"{mark} {row.name:18} {row.layout.words:10} tuned {row.speed or 0:5.2f}   "
                f"again {statistics.median(ratios):5.2f} of the chosen one "
                f"({min(ratios):.2f} to {max(ratios):.2f})"
            )
    best = max(speeds, key=lambda index: statistics.median(speeds[index]))
    pairs = zip(chosen, speeds[best], strict=True)
    figure = statistics.median(mine / its for mine, its in pairs)
    print(f"load {os.getloadavg()[0]:.1f}; tuned in {tuning.seconds:.0f} s; {tuning.why}")
    print(f"the chosen one / the best one, measured separately: {figure:.3f} (reach: 0.95 or more)")


def main() -> None:
    """Tune, measure again, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--budget", type=float, default=0.005)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="runport-benchmark-") as place:
        folder = arguments.model or make_model(Path(place, "model"), tiny=arguments.tiny)
        settings = Settings(cache_dir=Path(place, "cache"), data_dir=Path(place, "data"))
        pulled = pull(str(folder), settings=settings)
        request = TuneRequest(
            pulled.path,
            pulled.digest,
            settings.cache_dir,
            seconds=arguments.seconds,
            budget=arguments.budget,
            environment=process_environment(),
        )
        tuning = tune(request, lambda text: print(text, file=sys.stderr, flush=True))
        exports_dir = settings.cache_dir / "exports"
        export = tuned_export(exports_dir, tuning.rows[0])
        directory = export.path if export else pulled.path
        task = open_task(directory, tuning.task)
        # Another number of inputs is another set: the quantiles and the words differ.
        inputs = gather_inputs(task, directory, count=_INPUTS, max_tokens=512, samples=None)
        speeds = asyncio.run(race(tuning, pulled.path, exports_dir, inputs, arguments.rounds))
    report(tuning, speeds)


if __name__ == "__main__":
    main()
