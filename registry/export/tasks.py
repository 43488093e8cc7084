"""The tasks that can be exported, and which one a model is for; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from registry.errors import ExportError, UsageError


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What the exporter must know of a task.

    Attributes:
        name: Hugging Face's name of the task.
        auto_class: the transformers class that loads a model with the right head.
        architecture_suffix: how the architectures in `config.json` end.
        inputs: input names in graph order; a model that lacks one is exported without it.
        dynamic_axes: per input, axis number -> name of the size that varies.
        outputs: names of the outputs that the task's postprocessing reads.
    """

    name: str
    auto_class: str
    architecture_suffix: str
    inputs: tuple[str, ...]
    dynamic_axes: Mapping[int, str]
    outputs: tuple[str, ...]


TASKS: Mapping[str, TaskSpec] = {
    spec.name: spec
    for spec in (
        TaskSpec(
            name="text-classification",
            auto_class="AutoModelForSequenceClassification",
            architecture_suffix="ForSequenceClassification",
            inputs=("input_ids", "attention_mask", "token_type_ids"),
            dynamic_axes={0: "batch", 1: "sequence"},
            outputs=("logits",),
        ),
    )
}
"""Every task that can be exported, by name."""


def choose_task(config: Mapping[str, object], wanted: str | None) -> TaskSpec:
    """Return the task that was asked for, else the one that the architecture is for.

    Raises:
        UsageError: `wanted` is no task that can be exported.
        ExportError: the architecture is for no task that can be exported.
    """
    known = ", ".join(sorted(TASKS))
    if wanted is not None:
        if wanted not in TASKS:
            raise UsageError(f"{wanted!r} cannot be exported.", hint=f"Known tasks: {known}.")
        return TASKS[wanted]
    architectures = config.get("architectures")
    names = architectures if isinstance(architectures, list) else []
    for spec in TASKS.values():
        if any(str(name).endswith(spec.architecture_suffix) for name in names):
            return spec
    named = ", ".join(map(str, names)) or "none named"
    raise ExportError(
        f"The model's architecture ({named}) is for no task that can be exported.",
        hint=f"Known tasks: {known}; name one with --task if the weights have its head.",
    )
