"""A rewriting task run by hand, and the texts that transformers makes of the same directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from registry import EncoderDecoder
from serving.generation.protocol import Job
from serving.generation.rewriting import Rewriting
from serving.generation.seq2seq import Seq2SeqDecoder
from serving.tasks.directory import read_directory
from tests.seq2seq_models import corpus

TEXTS = (
    "",
    " ",
    "a",
    "東京",
    "über naïve café привет",
    "😀 \u200b\u0301 zero width",
    "the " * 300,
    " ".join(corpus(40)),
    *corpus(175, seed=9),
    *("x" * length for length in range(1, 80, 4)),
)
"""Empty, one word, all of Unicode, longer than the models, at the edge of their maximum."""


class Rewriter:
    """A task with its decoder.

    Args:
        directory: an export, or a model as it was logged.
        task: its name.
        graphs: run the model.
    """

    def __init__(self, directory: Path, task: str, graphs: EncoderDecoder) -> None:
        self.task = Rewriting.opener(task)(read_directory(directory))
        self.decoder = Seq2SeqDecoder(
            "onnx",
            graphs,
            pad_id=self.task.encoder.pads["input_ids"],
            context_tokens=self.task.context_tokens,
            max_sequences=512,
            cache_tokens=2**20,
        )

    def answers(self, texts: Sequence[str], parameters: Mapping[str, Any]) -> list[Any]:
        """Answer all texts at once."""
        made = [self.task.prepare(text, parameters) for text in texts]
        self.grow([job for jobs in made for job in jobs])
        return [self.task.answer(jobs) for jobs in made]

    def grow(self, jobs: Sequence[Job]) -> None:
        """Generate until all jobs are complete; all sequences step together."""
        decoder = self.decoder
        opened = [decoder.open(job.prompt) for job in jobs]
        found = decoder.prefill(opened)
        live = [
            (job, [number], logits[None])
            for job, number, logits in zip(jobs, opened, found, strict=True)
            if logits is not None
        ]
        while live:
            moves = []
            for job, numbers, logits in live:
                move = job.search.advance(logits.copy())
                kept = {numbers[parent] for parent in move.parents} if move.tokens else set()
                for number in set(numbers) - kept:
                    decoder.close(number)
                if move.tokens:
                    forked = decoder.fork([numbers[parent] for parent in move.parents])
                    moves.append((job, forked, move.tokens))
            if not moves:
                return
            logits = decoder.step(
                [number for _, numbers, _ in moves for number in numbers],
                [token for _, _, tokens in moves for token in tokens],
            )
            live, start = [], 0
            for job, numbers, _ in moves:
                live.append((job, numbers, logits[start : start + len(numbers)]))
                start += len(numbers)


class Reference:
    """The model with its tokenizer in transformers, asked as the pipelines of version 4 did.

    Args:
        model: a directory as the Trainer leaves it.
    """

    def __init__(self, model: Path) -> None:
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.model = AutoModelForSeq2SeqLM.from_pretrained(model).eval()

    def texts(self, text: str, key: str, parameters: Mapping[str, Any]) -> list[str]:
        """Return the texts for one input.

        Args:
            text: the input.
            key: of `task_specific_params`.
            parameters: of `generate`.
        """
        import torch

        specific = dict((self.model.config.task_specific_params or {}).get(key, {}))
        prefix = specific.pop("prefix", "")
        settings = {"num_beams": 4, **specific, **parameters}
        if "max_length" not in settings:
            settings.setdefault("max_new_tokens", 256)
        if "max_new_tokens" in parameters:
            settings.pop("max_length", None)
        encoded = self.tokenizer(prefix + text, return_tensors="pt", truncation=True)
        encoded.pop("token_type_ids", None)
        with torch.inference_mode():
            found = self.model.generate(**encoded, **settings)
        return [self.tokenizer.decode(one, skip_special_tokens=True) for one in found]
