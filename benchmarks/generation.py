"""GPT-2, greedy, concurrent streams: our core against `transformers.generate` of one batch.

python -m benchmarks.generation [--rounds N] [--streams N] [--new-tokens N] [--threads N] [--tiny]

A model of GPT-2's size with random weights and GPT-2's vocabulary size; prompts of mixed lengths.
Ours answers each prompt as a request of its own, all at once, from text to text; transformers gets
the tokens of all prompts as one batch, filled up on the left, and its tokens are not even decoded.
Both write the same number of tokens, which have to be the same. Rounds are interleaved, ratios are
medians; processor time says more on a crowded machine.
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

from registry import export_model
from registry.store.snapshots import snapshot_digest
from serving.config import CoreLimits, available_cores
from serving.generation.tasks import open_generation
from serving.worker.generation import GenerationCore
from serving.worker.messages import Done, Outcome, PredictRequest

_TINY = {"n_embd": 64, "n_head": 4, "n_layer": 2}


def make_model(path: Path, size: dict[str, int]) -> None:
    """Save a GPT-2 with random weights and a tokenizer whose tokens are words w0, w1, …"""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    torch.manual_seed(0)
    # Wider than the default, under which a model of random weights repeats its last token.
    config = transformers.GPT2Config(**size, initializer_range=0.1)
    model = transformers.GPT2LMHeadModel(config)
    model.generation_config.eos_token_id = None
    model.save_pretrained(path)
    words = {f"w{number}": number for number in range(config.vocab_size)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.Fuse()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=1024)
    fast.save_pretrained(path)


def draw_prompts(count: int, words: int, seed: int) -> list[list[int]]:
    """Return prompts of 8 to 96 tokens."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, words, rng.integers(8, 97)).tolist() for _ in range(count)]


async def ours(core: GenerationCore, prompts: Sequence[Sequence[int]], new: int) -> list[Any]:
    """Return how the prompts go on; each is a request."""
    wish = {"do_sample": False, "max_new_tokens": new, "details": True, "return_full_text": False}
    texts = [" ".join(f"w{token}" for token in prompt) for prompt in prompts]
    answers = await asyncio.gather(*(core.predict(PredictRequest([text], wish)) for text in texts))
    return [_tokens(outcomes[0]) for outcomes in answers]


def _tokens(outcome: Outcome) -> Any:
    if not isinstance(outcome, Done):
        raise SystemExit(f"ours failed: {outcome}")
    return [one["id"] for one in outcome.value["details"]["tokens"]]


def theirs(model: Any, prompts: Sequence[Sequence[int]], new: int) -> Any:
    """Return the tokens after the prompts, which are filled up on the left."""
    import torch

    longest = max(map(len, prompts))
    ids = torch.zeros(len(prompts), longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    found = model.generate(
        ids, attention_mask=mask, max_new_tokens=new, do_sample=False, pad_token_id=0
    )
    return found[:, longest:].tolist()


async def measure(model_dir: Path, export: Path, arguments: argparse.Namespace) -> None:
    """Run interleaved rounds and print."""
    import torch
    import transformers

    torch.set_num_threads(arguments.threads)
    model = transformers.AutoModelForCausalLM.from_pretrained(model_dir).eval()
    task, decoder = open_generation(
        export, "text-generation", engine="onnx", threads=arguments.threads, max_jobs=16
    )
    wall: list[float] = []
    processor: list[float] = []
    same = 0
    async with GenerationCore(task, decoder, CoreLimits()) as core:
        for number in range(arguments.rounds + 1):
            prompts = draw_prompts(arguments.streams, model.config.vocab_size, number)
            before, used = time.perf_counter(), time.process_time()
            found = await ours(core, prompts, arguments.new_tokens)
            between, used_between = time.perf_counter(), time.process_time()
            expected = theirs(model, prompts, arguments.new_tokens)
            after, used_after = time.perf_counter(), time.process_time()
            if number == 0:  # pays what is paid once
                continue
            same += sum(one == other for one, other in zip(found, expected, strict=True))
            wall.append((after - between) / (between - before))
            processor.append((used_after - used_between) / (used_between - used))
            rate = arguments.streams * arguments.new_tokens / (between - before)
            print(f"round {number}: ours {rate:.0f} tokens/s, ratio {wall[-1]:.2f}")
    texts = arguments.rounds * arguments.streams
    print(
        f"{arguments.streams} streams of {arguments.new_tokens} tokens, {arguments.threads} "
        f"threads: {statistics.median(wall):.2f} times transformers.generate "
        f"(processor time {statistics.median(processor):.2f}); same text {same} of {texts}; "
        f"load {os.getloadavg()[0]:.1f}"
    )


def main() -> None:
    """Make the model, export it, measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--tiny", action="store_true", help="a small model, to try the script")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "model")
        make_model(model, _TINY if arguments.tiny else {})
        digest = snapshot_digest({})
        export = export_model(model, digest=digest, exports_dir=Path(folder, "exports"))
        print(export.report.summary())
        asyncio.run(measure(model, export.path, arguments))


if __name__ == "__main__":
    main()
