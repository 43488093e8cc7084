"""Engine alone, fp32, mixed lengths: our export, batching and slots against a plain session.

python -m benchmarks.engines [--rounds N] [--texts N] [--threads N] [--model bert|distilbert]
                             [--length-step N]

BERT-base and DistilBERT classifiers of the real sizes with random weights: time does not depend on
their values. The plain session runs the exporter's own graph with ONNX Runtime's default options on
as many threads as there are cores, fed padded batches of 32 in the order of arrival, and one text
at a time. Ours answers 64 callers through the worker's core: the same queue, slots and engine as
behind HTTP. Nobody tokenises. Rounds are interleaved; ratios are medians over rounds. On a crowded
machine the ratio of processor time with one thread says more: nobody waits for a core.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from benchmarks._texts import draw_ids, draw_lengths
from registry import export_model
from registry.store.snapshots import snapshot_digest
from serving.config import CoreLimits, available_cores
from serving.engines.onnx import OnnxEngine, open_onnx
from serving.tasks import open_task
from serving.tasks.protocol import Row, Task
from serving.worker.core import WorkerCore
from serving.worker.messages import PredictRequest, Problem

Taken: TypeAlias = tuple[float, float]
"""Seconds that passed, and of processor time."""

PADDED_BATCH = 32
CALLERS = 64
_PLAIN_FILE = "plain.onnx"
_VOCABULARY = 30_000


@dataclass(frozen=True)
class Encoded:
    """A task whose inputs are tokens already: all but tokenising is the real one's."""

    task: Task

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def preprocess(self, item: Sequence[int], _parameters: Mapping[str, object]) -> tuple[Row]:
        """Return the tokens as a row."""
        ids = np.array(item, dtype=np.int64)
        arrays = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        arrays["token_type_ids"] = np.zeros_like(ids)
        return (Row(arrays, length=len(ids), truncated=False),)


def make_model(kind: str, directory: Path) -> Path:
    """Write a classifier of the real size with random weights and a tokenizer."""
    import transformers

    from tests.models import write_bert_tokenizer

    directory.mkdir()
    write_bert_tokenizer(directory, max_length=512)
    if kind == "bert":
        model = transformers.BertForSequenceClassification(transformers.BertConfig(num_labels=3))
    else:
        model = transformers.DistilBertForSequenceClassification(
            transformers.DistilBertConfig(num_labels=3)
        )
    model.save_pretrained(directory)
    return directory


def open_plain(directory: Path, threads: int) -> Any:
    """Open the exporter's own graph as anybody would."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(
        str(directory / _PLAIN_FILE), options, providers=["CPUExecutionProvider"]
    )


def run_plain(session: Any, rows: Sequence[Sequence[int]], batch_rows: int) -> list[np.ndarray]:
    """Answer in the order of arrival, so many rows at a time, padded to their longest."""
    names = {value.name for value in session.get_inputs()}
    answers: list[np.ndarray] = []
    for start in range(0, len(rows), batch_rows):
        chosen = rows[start : start + batch_rows]
        ids = np.zeros((len(chosen), max(map(len, chosen))), dtype=np.int64)
        mask = np.zeros_like(ids)
        for index, row in enumerate(chosen):
            ids[index, : len(row)], mask[index, : len(row)] = row, 1
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        answers += list(session.run(None, {name: feeds[name] for name in names})[0])
    return answers


def run_ours(task: Task, engine: OnnxEngine, limits: CoreLimits, rows: Sequence[Any]) -> None:
    """Answer all rows to `CALLERS` callers, each of whom asks for one at a time."""

    async def ask(core: WorkerCore, waiting: Iterator[Any]) -> None:
        for row in waiting:
            (outcome,) = await core.predict(PredictRequest([row], {}))
            if isinstance(outcome, Problem):
                raise SystemExit(f"ours failed: {outcome}")

    async def run() -> None:
        async with WorkerCore(task, engine, limits) as core:
            waiting = iter(rows)
            await asyncio.gather(*(ask(core, waiting) for _ in range(CALLERS)))

    asyncio.run(run())


def _timed(run: Callable[[], object]) -> Taken:
    started, used = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - started, time.process_time() - used


def check_answers(session: Any, engine: OnnxEngine, rows: Sequence[Sequence[int]]) -> float:
    """Return the largest difference between the plain graph's logits and ours."""
    expected = run_plain(session, rows, 1)
    worst = 0.0
    for row, one in zip(rows, expected, strict=True):
        ids = np.array([row], dtype=np.int64)
        feeds = {name: np.zeros_like(ids) for name in engine.input_names}
        feeds |= {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        worst = max(worst, float(np.abs(engine.run(feeds)["logits"][0] - one).max()))
    return worst


def measure(kind: str, arguments: argparse.Namespace) -> None:
    """Export, run interleaved rounds, print."""
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(kind, Path(folder, "model"))
        export = export_model(
            model, digest=snapshot_digest({kind: "0" * 64}), exports_dir=Path(folder, "exports")
        )
        session, engine = (
            open_plain(export.path, arguments.threads),
            open_onnx(export.path, threads=1),
        )
        task: Any = Encoded(open_task(export.path, None))
        limits = CoreLimits(slots=arguments.threads, length_step=arguments.length_step)
        times: dict[str, list[Taken]] = {"batches": [], "alone": [], "ours": []}
        for number in range(arguments.rounds + 1):
            lengths = draw_lengths(arguments.texts, number)
            rows = draw_ids(lengths, _VOCABULARY, number)
            if number == 0:  # warm, and right
                print(f"{kind}: largest difference {check_answers(session, engine, rows[:24]):.1e}")
                run_ours(task, engine, limits, rows[:24])
                continue
            times["batches"].append(_timed(partial(run_plain, session, rows, PADDED_BATCH)))
            times["ours"].append(_timed(partial(run_ours, task, engine, limits, rows)))
            times["alone"].append(_timed(partial(run_plain, session, rows, 1)))
        report(kind, times, arguments.texts)


def report(kind: str, times: Mapping[str, Sequence[Taken]], texts: int) -> None:
    """Print rates and ratios."""
    for name, taken in times.items():
        print(f"  {name:8} {texts / statistics.median(passed for passed, _ in taken):7.1f} texts/s")
    for name, reach in (("batches", 1.4), ("alone", 1.1)):
        pairs = list(zip(times[name], times["ours"], strict=True))
        passed, used = ([other[clock] / ours[clock] for other, ours in pairs] for clock in (0, 1))
        every = ", ".join(f"{ratio:.2f}" for ratio in passed)
        print(
            f"  {kind} ours / plain {name:8} {statistics.median(passed):5.2f}   "
            f"(reach: {reach} or more; {every}; of processor time {statistics.median(used):.2f})"
        )


def main() -> None:
    """Measure both models."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=128)
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--model", choices=("bert", "distilbert"))
    parser.add_argument("--length-step", type=int, default=CoreLimits().length_step)
    arguments = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {available_cores()} cores")
    for kind in [arguments.model] if arguments.model else ["distilbert", "bert"]:
        measure(kind, arguments)
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
