"""Tiny models that hear and see, with their exports, made when first asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from registry import Export
from tests.exports import export_directory
from tests.senses import tiny_ctc, tiny_hubert, tiny_resnet, tiny_vit

_MAKERS: Mapping[str, Callable[[Path], Path]] = {
    "automatic-speech-recognition": tiny_ctc,
    "audio-classification": tiny_hubert,
    "image-classification": tiny_vit,
    "resnet": tiny_resnet,
}


class SenseModels:
    """Models and exports by task, in one folder.

    Args:
        folder: where they are kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._models: dict[str, Path] = {}
        self._exports: dict[str, Export] = {}

    def model(self, name: str) -> Path:
        """Return the model as it was logged; do not change it."""
        if name not in self._models:
            self._models[name] = _MAKERS[name](self._folder / name)
        return self._models[name]

    def export(self, name: str) -> Export:
        """Return its export; do not change it."""
        if name not in self._exports:
            made = export_directory(self.model(name), self._folder / "exports")
            self._exports[name] = made
        return self._exports[name]
