"""What each step of the graph work saves: processor time of one thread, without it / with it.

python -m benchmarks.graph_steps [--rounds N] [--model bert|distilbert]

From the exporter's graph with ONNX Runtime's default options, step by step: the slow fusions off
(`registry.export.session`), then each of `registry.export.fusion`. Rounds are interleaved.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.engines import make_model
from registry import export_model
from registry.export.fusion import STEPS, apply
from registry.export.session import SLOW_FUSIONS
from registry.store.snapshots import snapshot_digest

BATCHES = ([16], [35], [128], [35] * 8, [20, 25, 30, 35], [150, 200, 170])
_TOKENS_A_ROUND = 200


def graphs(plain: Path, folder: Path) -> dict[str, tuple[Path, list[str]]]:
    """Return graph and switched-off fusions by the name of the last step that was made."""
    import onnx_ir

    made = {"plain": (plain, []), "session": (plain, SLOW_FUSIONS)}
    model = onnx_ir.load(plain)
    for name, step in STEPS:
        apply(model, step)
        path = folder / f"{name}.onnx"
        onnx_ir.save(model, path)
        made[name] = (path, SLOW_FUSIONS)
    return made


def open_graph(path: Path, off: list[str]) -> Any:
    """Open a graph for one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"], disabled_optimizers=off
    )


def feeds_of(session: Any, lengths: Sequence[int]) -> dict[str, Any]:
    """Return a padded batch of these lengths."""
    mask = (np.arange(max(lengths))[None] < np.array(lengths)[:, None]).astype(np.int64)
    made = {"attention_mask": mask, "input_ids": 1000 * mask, "token_type_ids": 0 * mask}
    return {value.name: made[value.name] for value in session.get_inputs()}


def used_s(session: Any, feeds: dict[str, Any], times: int) -> float:
    """Return the processor time of so many runs."""
    started = time.process_time()
    for _ in range(times):
        session.run(None, feeds)
    return time.process_time() - started


def main() -> None:
    """Export, measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--model", choices=("bert", "distilbert"), default="distilbert")
    arguments = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(arguments.model, Path(folder, "model"))
        digest = snapshot_digest({arguments.model: "0" * 64})
        export = export_model(model, digest=digest, exports_dir=Path(folder, "exports"))
        made = graphs(export.path / "plain.onnx", Path(folder))
        sessions = {name: open_graph(*one) for name, one in made.items()}
        print(f"{'tokens':24}{''.join(f'{name:>12}' for name in sessions)}")
        for lengths in BATCHES:
            feeds = feeds_of(sessions["plain"], lengths)
            times = max(1, _TOKENS_A_ROUND // sum(lengths))
            rounds = [
                [used_s(session, feeds, times) for session in sessions.values()]
                for _ in range(arguments.rounds)
            ]
            columns = [[one[0] / one[index] for one in rounds] for index in range(len(sessions))]
            ratios = "".join(f"{statistics.median(column):12.2f}" for column in columns)
            print(f"{', '.join(map(str, lengths)):24.24}{ratios}")


if __name__ == "__main__":
    main()
