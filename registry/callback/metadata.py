"""What is known about a version when it is logged: metrics, step, task, origin; pure of W&B."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata as distributions
from typing import Any

from registry.adapter import BASE_METADATA
from registry.callback.arguments import json_safe
from registry.export import task_of

MAX_KEYS = 100
"""W&B refuses artifact metadata with more keys at the top."""

MAX_LABELS = 1000
"""More label names than this would make the metadata large; they stay in `config.json`."""

_TASKS = (
    ("ForSequenceClassification", "text-classification"),
    ("ForTokenClassification", "token-classification"),
    ("ForQuestionAnswering", "question-answering"),
    ("ForMultipleChoice", "multiple-choice"),
    ("ForMaskedLM", "fill-mask"),
    ("ForCausalLM", "text-generation"),
    ("LMHeadModel", "text-generation"),
    ("ForSpeechSeq2Seq", "automatic-speech-recognition"),
    ("ForCTC", "automatic-speech-recognition"),
    ("ForConditionalGeneration", "text2text-generation"),
    ("ForImageClassification", "image-classification"),
    ("ForAudioClassification", "audio-classification"),
    ("ForObjectDetection", "object-detection"),
    ("ForSemanticSegmentation", "image-segmentation"),
    ("SentenceTransformer", "feature-extraction"),
    ("SparseEncoder", "feature-extraction"),
    ("CrossEncoder", "text-ranking"),
)
_SPEECH_MODELS = ("Whisper", "Speech2Text", "SpeechT5ForSpeechToText", "Moonshine")


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which state of the training is logged.

    Attributes:
        step: the optimiser step of the weights.
        epoch: the same as an epoch, None when unknown.
        selected: `best` (loaded at the end by its metric), `last`, or `checkpoint`.
    """

    step: int
    epoch: float | None
    selected: str


def final_choice(args: Any, state: Any) -> Chosen:
    """Return what the model in memory is when training ends.

    With `load_best_model_at_end` it is the best checkpoint, if there was one; else the last step.
    """
    best = getattr(state, "best_model_checkpoint", None)
    if not args.load_best_model_at_end or best is None:
        return Chosen(state.global_step, _epoch_at(state, state.global_step), "last")
    step = getattr(state, "best_global_step", None)
    if step is None:
        found = re.search(r"checkpoint-(\d+)$", str(best).rstrip("/"))
        step = int(found.group(1)) if found else state.global_step
    return Chosen(int(step), _epoch_at(state, int(step)), "best")


def checkpoint_choice(state: Any) -> Chosen:
    """Return what was just saved as a checkpoint."""
    return Chosen(state.global_step, _epoch_at(state, state.global_step), "checkpoint")


def evaluation_metrics(log_history: Iterable[Mapping[str, Any]], step: int) -> dict[str, Any]:
    """Return every numeric metric of the evaluations made at `step`, keyed `eval/<name>`.

    Metrics of another step are not this model's and are left out. NaN becomes None.
    """
    metrics: dict[str, Any] = {}
    for entry in log_history:
        if entry.get("step") == step:
            metrics.update(renamed_metrics(entry))
    return metrics


def renamed_metrics(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numeric `eval_*` and `test_*` values of a log entry as `eval/*`, `test/*`."""
    renamed = {}
    for key, value in entry.items():
        group, underscore, name = key.partition("_")
        if group not in {"eval", "test"} or not underscore or not name:
            continue
        number = json_safe(value)
        if number is None or (isinstance(number, int | float) and not isinstance(number, bool)):
            # A metric may itself be called `eval/f1`; do not double the group.
            renamed[f"{group}/{name.removeprefix(f'{group}/')}"] = number
    return renamed


def version_metadata(
    *,
    model: Any,
    args: Any,
    state: Any,
    chosen: Chosen,
    run_name: str,
    base: str | None = None,
) -> dict[str, Any]:
    """Return the metadata of one version: JSON values, at most 100 keys.

    Facts come first, so that a training with very many metrics loses metrics and no facts.

    Args:
        model: what was trained.
        args: its `TrainingArguments`.
        state: the `TrainerState`, whose log history holds the metrics.
        chosen: which state of the training is logged.
        run_name: as the user spelled it, before it was made fit for an artifact name.
        base: the artifact that holds an adapter's base model, when it is known.
    """
    facts = {
        "run_name": run_name,
        "step": chosen.step,
        "epoch": chosen.epoch,
        "selected": chosen.selected,
        **_selection(args, state, chosen),
        **model_facts(model),
        **({BASE_METADATA: base} if base else {}),
        "transformers_version": distributions.version("transformers"),
        "torch_version": distributions.version("torch"),
        "logged_by": f"runport {distributions.version('runport')}",
    }
    metrics = evaluation_metrics(state.log_history, chosen.step)
    totals = {"train/total_flos": state.total_flos, **_train_loss(state, chosen)}
    merged = json_safe({**facts, **metrics, **totals})
    return dict(list(merged.items())[:MAX_KEYS])


def model_facts(model: Any) -> dict[str, Any]:
    """Return what the model says about itself: task, architecture, base, labels, size."""
    config = getattr(model, "config", None)
    facts: dict[str, Any] = {"task": model_task(model), "architecture": _architecture(model)}
    base = _base_model(model, config)
    if base:
        facts["base_model"] = base
    for name in ("model_type", "problem_type"):
        value = getattr(config, name, None)
        if value:
            facts[name] = str(value)
    if facts["task"] and facts["task"].endswith("-classification"):
        facts.update(_labels(config))
    if getattr(model, "peft_config", None):
        facts["peft"] = True
    facts["num_parameters"] = sum(parameter.numel() for parameter in model.parameters())
    return facts


def model_task(model: Any) -> str | None:
    """Return the task by Hugging Face's name, from the class of the model; None when unknown."""
    name = _architecture(model)
    if name.endswith("ForConditionalGeneration") and name.startswith(_SPEECH_MODELS):
        return "automatic-speech-recognition"
    # Classifiers of sounds end as those of texts do.
    if task_of({"architectures": [name]}) == "audio-classification":
        return "audio-classification"
    return next((task for suffix, task in _TASKS if name.endswith(suffix)), None)


def _architecture(model: Any) -> str:
    # An adapter wraps the model whose head decides the task.
    wrapped = getattr(model, "get_base_model", None)
    return type(wrapped() if callable(wrapped) else model).__name__


def _base_model(model: Any, config: Any) -> str:
    for adapter in (getattr(model, "peft_config", None) or {}).values():
        name = getattr(adapter, "base_model_name_or_path", None)
        if name:
            return str(name)
    card = getattr(model, "model_card_data", None)
    return str(getattr(card, "base_model", None) or getattr(config, "_name_or_path", None) or "")


def _labels(config: Any) -> dict[str, Any]:
    names = dict(getattr(config, "id2label", None) or {})
    facts: dict[str, Any] = {"num_labels": len(names)}
    if 0 < len(names) <= MAX_LABELS:
        facts["labels"] = [str(names[index]) for index in sorted(names)]
    return facts


def _selection(args: Any, state: Any, chosen: Chosen) -> dict[str, Any]:
    if chosen.selected != "best":
        return {}
    return {"best_metric_name": args.metric_for_best_model, "best_metric": state.best_metric}


def _train_loss(state: Any, chosen: Chosen) -> dict[str, Any]:
    """Return the newest training loss that was logged up to the chosen step."""
    losses = [
        entry["loss"]
        for entry in state.log_history
        if "loss" in entry and entry.get("step", chosen.step + 1) <= chosen.step
    ]
    return {"train/loss": losses[-1]} if losses else {}


def _epoch_at(state: Any, step: int) -> float | None:
    epochs = [
        entry["epoch"]
        for entry in state.log_history
        if entry.get("step") == step and entry.get("epoch") is not None
    ]
    if epochs:
        return float(epochs[-1])
    if step == state.global_step and state.epoch is not None:
        return float(state.epoch)
    return None
