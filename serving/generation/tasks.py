"""The tasks whose answers grow token by token, and how one is opened with its decoder."""

from __future__ import annotations

from pathlib import Path

from serving.generation.cached import open_cached
from serving.generation.protocol import Decoder, GenerationTask
from serving.generation.rewriting import Rewriting
from serving.generation.seq2seq import open_seq2seq
from serving.generation.text_generation import NAME, TextGeneration
from serving.tasks.directory import read_directory

REWRITING = ("summarization", "translation", "text2text-generation")
"""Tasks of models with encoder and decoder."""

TASKS = frozenset((NAME, *REWRITING))
"""All tasks that are answered by the generation loop."""

_SEQUENCES_PER_JOB = 4  # beams of the pipelines' default
_CACHE_BYTES = 2 * 2**30


def open_generation(
    directory: Path, task: str, *, engine: str, threads: int, max_jobs: int
) -> tuple[GenerationTask, Decoder]:
    """Open the task and the decoder of the model in `directory`.

    Args:
        directory: an export for `onnx`, a version as it was logged for `torch` (rewriting only).
        task: one of `TASKS`.
        engine: `onnx` or `torch`.
        threads: cores that a step may use.
        max_jobs: answers that shall grow at once.

    Raises:
        LoadError: a file is missing or broken, or there is no such engine.
        RegistryError: the model cannot be loaded.
    """
    model = read_directory(directory)
    if task == NAME:
        cached = open_cached(
            directory,
            engine=engine,
            threads=threads,
            max_sequences=max_jobs,
            cache_bytes=_CACHE_BYTES,
        )
        return TextGeneration.open(model), cached
    opened = Rewriting.opener(task)(model)
    decoder = open_seq2seq(
        directory,
        engine=engine,
        task=task,
        pad_id=opened.encoder.pads["input_ids"],
        threads=threads,
        max_sequences=max_jobs * _SEQUENCES_PER_JOB,
        cache_bytes=_CACHE_BYTES,
    )
    return opened, decoder
