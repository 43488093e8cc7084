"""Tasks: one module each.

Opening one needs `tokenizers`, JSON and numpy; neither torch nor transformers.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from registry import task_of
from serving.errors import LoadError
from serving.tasks.directory import ModelDirectory, read_directory
from serving.tasks.protocol import Outputs, Row, Samples, Task

_CLASSES = {
    "audio-classification": ("audio_classification", "AudioClassification"),
    "automatic-speech-recognition": ("automatic_speech_recognition", "AutomaticSpeechRecognition"),
    "feature-extraction": ("feature_extraction", "FeatureExtraction"),
    "fill-mask": ("fill_mask", "FillMask"),
    "image-classification": ("image_classification", "ImageClassification"),
    "question-answering": ("question_answering", "QuestionAnswering"),
    "sentence-similarity": ("sentence_similarity", "SentenceSimilarity"),
    "text-classification": ("text_classification", "TextClassification"),
    "text-ranking": ("text_ranking", "TextRanking"),
    "token-classification": ("token_classification", "TokenClassification"),
    "zero-shot-classification": ("zero_shot_classification", "ZeroShotClassification"),
}
"""Module and class of each task; only what is opened is imported."""


def open_task(directory: Path, task: str | None) -> Task:
    """Open the task of the model in `directory`: an export, or the version as it was logged.

    Args:
        directory: has `config.json` and `tokenizer.json`.
        task: its name; None takes what `export.json` says, else what the architecture is for.

    Raises:
        LoadError: a file is missing or broken, or no task fits.
    """
    model = read_directory(directory)
    name = _name_of(model, task)
    if name not in _CLASSES:
        raise LoadError(
            f"The task {name!r} cannot be served.", hint=f"Known tasks: {', '.join(_CLASSES)}."
        )
    module, class_name = _CLASSES[name]
    opener = getattr(importlib.import_module(f"{__name__}.{module}"), class_name)
    opened: Task = opener.open(model)
    return opened


def name_task(directory: Path, task: str | None) -> str:
    """Return the name of the task of the model in `directory`; arguments as in `open_task`.

    Raises:
        LoadError: a file is missing or broken, or no task fits.
    """
    return _name_of(read_directory(directory), task)


def _name_of(model: ModelDirectory, task: str | None) -> str:
    return task or model.exported_task or _task_of(model)


def _task_of(model: ModelDirectory) -> str:
    found = task_of(model.config)
    if found is not None:
        return found
    architectures = model.config.get("architectures")
    names = [str(name) for name in architectures] if isinstance(architectures, list) else []
    raise LoadError(
        f"The architecture {', '.join(names) or '(none named)'} is for no task that can be served.",
        hint=f"Known tasks: {', '.join(_CLASSES)}.",
    )


__all__ = ["Outputs", "Row", "Samples", "Task", "name_task", "open_task"]
