"""Summaries and the like: our loop against `transformers.generate` of the same texts in a batch.

python -m benchmarks.rewriting [--rounds N] [--texts N] [--threads N] [--keep FOLDER]

A model of T5-small's size with random weights: time does not depend on what the weights say. All
texts have an answer of 32 tokens on both sides, greedily and with 4 beams; theirs are padded to one
batch, ours grow together in the loop of the worker. Both tokenise. Rounds are interleaved, ratios
are medians, and the texts must be the same. On a crowded machine look at the processor time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from registry import export_model
from registry.store.snapshots import snapshot_digest
from serving.config import available_cores
from serving.generation.loop import GenerationLoop
from serving.generation.tasks import open_generation
from tests.seq2seq_models import corpus, write_t5_tokenizer

_TOKENS = 32
_TASK = "text2text-generation"


def make_model(directory: Path) -> Path:
    """Write a model of T5-small's size into `directory`, if it is not there."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    if not (directory / "model.safetensors").is_file():
        directory.mkdir(parents=True, exist_ok=True)
        write_t5_tokenizer(directory, max_length=512)
        torch.manual_seed(0)
        config = T5Config(vocab_size=32_128, decoder_start_token_id=0)
        T5ForConditionalGeneration(config).save_pretrained(directory)
    return directory


def our_side(export: Path, texts: list[str], threads: int) -> Callable[[int], list[str]]:
    """Return what answers with so many beams, by our loop."""
    task, decoder = open_generation(
        export, _TASK, engine="onnx", threads=threads, max_jobs=max(len(texts), 4)
    )

    def answers(beams: int) -> list[str]:
        loop = GenerationLoop(decoder, max_jobs=len(texts))
        wish = {"num_beams": beams, "max_new_tokens": _TOKENS, "min_new_tokens": _TOKENS}
        made = [task.prepare(text, wish) for text in texts]
        for number, jobs in enumerate(made):
            for job in jobs:
                loop.add(number, job)
        while not loop.idle:
            loop.admit()
            failed = [ended.error for ended in loop.turn() if ended.error is not None]
            if failed:
                raise SystemExit(f"ours failed: {failed[0]}")
        found: list[Any] = [task.answer(jobs) for jobs in made]
        return [answer[0]["generated_text"] for answer in found]

    return answers


def their_side(model_dir: Path, texts: list[str], threads: int) -> Callable[[int], list[str]]:
    """Return what answers with so many beams, by `transformers.generate`."""
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    model = AutoModelForSeq2SeqLM.from_pretrained(model_dir).eval()

    def answers(beams: int) -> list[str]:
        batch = tokenizer(texts, return_tensors="pt", padding=True, truncation=True)
        batch.pop("token_type_ids", None)
        with torch.inference_mode():
            found = model.generate(
                **batch, num_beams=beams, max_new_tokens=_TOKENS, min_new_tokens=_TOKENS
            )
        return [tokenizer.decode(one, skip_special_tokens=True) for one in found]

    return answers


def clocks() -> tuple[float, float]:
    """Return the time that passes, and the processor time of this process, in seconds."""
    return time.perf_counter(), time.process_time()


def measure(
    ours: Callable[[int], list[str]], theirs: Callable[[int], list[str]], beams: int, rounds: int
) -> None:
    """Run interleaved rounds and print the ratios."""
    passed, busy, same = [], [], 0
    for number in range(rounds + 1):
        started = clocks()
        expected = theirs(beams)
        between = clocks()
        found = ours(beams)
        ended = clocks()
        if number:  # the first round warms
            passed.append((between[0] - started[0]) / (ended[0] - between[0]))
            busy.append((between[1] - started[1]) / (ended[1] - between[1]))
        same = sum(one == other for one, other in zip(expected, found, strict=True))
    every = ", ".join(f"{ratio:.2f}" for ratio in passed)
    print(
        f"{beams} beams: {statistics.median(passed):5.2f} times as fast ({every}), "
        f"processor time {statistics.median(busy):.2f}, same texts {same} of {len(expected)}"
    )


def main() -> None:
    """Make and export the model, and measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=8)
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--keep", type=Path, help="where model and export are kept")
    arguments = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {available_cores()} cores")
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.keep or Path(scratch)
        model = make_model(folder / "model")
        digest = snapshot_digest({"rewriting": "0" * 64})
        export = export_model(model, digest=digest, exports_dir=folder / "exports", task=_TASK)
        print(f"export {export.seconds:.0f} s, {export.peak_memory_bytes / 2**20:.0f} MiB")
        texts = [" ".join(corpus(6, seed=seed)) for seed in range(arguments.texts)]
        ours = our_side(export.path, texts, arguments.threads)
        theirs = their_side(model, texts, arguments.threads)
        for beams in (1, 4):
            measure(ours, theirs, beams, arguments.rounds)
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
