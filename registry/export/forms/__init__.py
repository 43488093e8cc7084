"""How models of one form are converted and compared with torch: one module each.

A form is what decides how a model is called: a text in one pass, a text that grows token by token,
a waveform, an image. `registry.export.tasks` says which form a task has.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Protocol, cast

from registry.export.channel import Emit
from registry.export.messages import ChildRequest, Success
from registry.export.source import ModelSource

_MODULES = {
    "audio": "audio",
    "generation": "generation",
    "image": "image",
    "seq2seq": "seq2seq",
    "text": "text",
}


class Form(Protocol):
    """What the exporting child asks of a form."""

    def convert(self, request: ChildRequest, source: ModelSource, emit: Emit) -> None:
        """Write the export's files into the request's folder, and evidence into the current one.

        Raises:
            RegistryError: the model cannot be loaded, answered for or converted.
        """

    def judge(self, directory: Path, emit: Emit) -> Success:
        """Compare the export with the evidence in `directory`; needs no torch."""


def open_form(name: str) -> Form:
    """Return the form of this name (see `TaskSpec.form`); only its module is imported."""
    return cast(Form, importlib.import_module(f"{__name__}.{_MODULES[name]}"))
