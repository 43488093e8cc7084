"""A tiny model with its export for each task, made when first asked for and once a session."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from registry import Export
from tests.exports import export_directory
from tests.models import tiny_bert, tiny_head

NER_LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "MISC")
NLI_LABELS = ("contradiction", "neutral", "entailment")

_MAKERS: Mapping[str, Callable[[Path], Path]] = {
    "token-classification": lambda at: tiny_head(
        at, "BertForTokenClassification", NER_LABELS, seed=3
    ),
    "question-answering": lambda at: tiny_head(at, "BertForQuestionAnswering", seed=1),
    "fill-mask": lambda at: tiny_head(at, "BertForMaskedLM", seed=4),
    "feature-extraction": lambda at: tiny_head(at, "BertModel", seed=2),
    "sentence-similarity": lambda at: tiny_head(at, "BertModel", seed=2),
    "zero-shot-classification": lambda at: tiny_bert(at, labels=NLI_LABELS, seed=6),
    "text-ranking": lambda at: tiny_bert(at, labels=1, seed=7),
}
TASKS = tuple(_MAKERS)
_BY_NAME_ONLY = ("sentence-similarity", "zero-shot-classification", "text-ranking")


class TaskModels:
    """Models and exports by task, in one folder.

    Args:
        folder: where they are kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._models: dict[str, Path] = {}
        self._exports: dict[str, Export] = {}

    @property
    def cache(self) -> Path:
        """A cache folder that has the exports made so far."""
        return self._folder

    def model(self, task: str) -> Path:
        """Return the model as it was logged; do not change it."""
        if task not in self._models:
            self._models[task] = _MAKERS[task](self._folder / task)
        return self._models[task]

    def export(self, task: str) -> Export:
        """Return its export; do not change it."""
        if task not in self._exports:
            named = task if task in _BY_NAME_ONLY else None
            exports_dir = self._folder / "exports"
            self._exports[task] = export_directory(self.model(task), exports_dir, task=named)
            assert self._exports[task].task == task
        return self._exports[task]
