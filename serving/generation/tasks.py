"""The tasks whose answers grow token by token, and how one is opened with its decoder."""

from __future__ import annotations

from pathlib import Path

from serving.config import CACHE_BYTES
from serving.errors import LoadError
from serving.generation.cached import open_cached
from serving.generation.loop import GenerationLoop
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


def open_generation(
    directory: Path,
    task: str,
    *,
    engine: str,
    threads: int,
    max_jobs: int,
    cache_bytes: int = CACHE_BYTES,
) -> tuple[GenerationTask, Decoder]:
    """Open the task and the decoder of the model in `directory`.

    Args:
        directory: an export for `onnx`, a version as it was logged for `torch` (rewriting only).
        task: one of `TASKS`.
        engine: `onnx` or `torch`.
        threads: cores that a step may use.
        max_jobs: answers that shall grow at once.
        cache_bytes: memory for keys and values of all of them.

    Raises:
        LoadError: a file is missing or broken, there is no such engine, or the cache is too small
            for the task's samples.
        RegistryError: the model cannot be loaded.
    """
    opened, decoder = _open(directory, task, engine, threads, max_jobs, cache_bytes)
    loop, samples = GenerationLoop(decoder, max_jobs=1), opened.samples
    for item in samples.items:
        if not all(loop.fits(job) for job in opened.prepare(item, samples.parameters)):
            decoder.shutdown()
            raise LoadError(
                f"A cache of {cache_bytes / 2**20:.4g} MiB holds {decoder.cache_tokens} tokens of "
                "this model, too few for a short answer.",
                hint="Start the server with a larger --cache-memory.",
            )
    return opened, decoder


def _open(
    directory: Path, task: str, engine: str, threads: int, max_jobs: int, cache_bytes: int
) -> tuple[GenerationTask, Decoder]:
    model = read_directory(directory)
    if task == NAME:
        cached = open_cached(
            directory,
            engine=engine,
            threads=threads,
            max_sequences=max_jobs,
            cache_bytes=cache_bytes,
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
        cache_bytes=cache_bytes,
    )
    return opened, decoder
