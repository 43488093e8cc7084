"""Tasks: one module each.

Opening one needs `tokenizers`, JSON and numpy; neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from registry import task_of
from serving.errors import LoadError
from serving.tasks.audio_classification import AudioClassification
from serving.tasks.automatic_speech_recognition import AutomaticSpeechRecognition
from serving.tasks.directory import ModelDirectory, read_directory
from serving.tasks.feature_extraction import FeatureExtraction
from serving.tasks.fill_mask import FillMask
from serving.tasks.image_classification import ImageClassification
from serving.tasks.protocol import Outputs, Row, Samples, Task
from serving.tasks.question_answering import QuestionAnswering
from serving.tasks.sentence_similarity import SentenceSimilarity
from serving.tasks.text_classification import TextClassification
from serving.tasks.text_ranking import TextRanking
from serving.tasks.token_classification import TokenClassification
from serving.tasks.zero_shot_classification import ZeroShotClassification

_OPENERS: dict[str, Callable[[ModelDirectory], Task]] = {
    "audio-classification": AudioClassification.open,
    "automatic-speech-recognition": AutomaticSpeechRecognition.open,
    "feature-extraction": FeatureExtraction.open,
    "fill-mask": FillMask.open,
    "image-classification": ImageClassification.open,
    "question-answering": QuestionAnswering.open,
    "sentence-similarity": SentenceSimilarity.open,
    "text-classification": TextClassification.open,
    "text-ranking": TextRanking.open,
    "token-classification": TokenClassification.open,
    "zero-shot-classification": ZeroShotClassification.open,
}


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
    opener = _OPENERS.get(name)
    if opener is None:
        raise LoadError(
            f"The task {name!r} cannot be served.", hint=f"Known tasks: {', '.join(_OPENERS)}."
        )
    return opener(model)


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
        hint=f"Known tasks: {', '.join(_OPENERS)}.",
    )


__all__ = ["Outputs", "Row", "Samples", "Task", "name_task", "open_task"]
