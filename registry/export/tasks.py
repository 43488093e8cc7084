"""The tasks that can be exported, and which one a model is for; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from registry.errors import ExportError, UsageError

Form = Literal["text", "generation", "seq2seq", "audio", "image"]
Agreement = Literal["label", "tokens", "span", "direction"]


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What the exporter must know of a task.

    Attributes:
        name: Hugging Face's name of the task.
        auto_class: the transformers class that loads a model with the right head.
        architecture_suffix: how the architectures in `config.json` end that are for this task
            unless another is named, or several such endings; empty when it is taken by name only.
        outputs: names of the outputs that the task's postprocessing reads; the graph has no others.
        agreement: what of two answers has to agree, see `registry.export.comparison`.
        form: how its models are called, see `registry.export.forms`.
        inputs: input names in graph order; a model that lacks one is exported without it.
        dynamic_axes: per input, axis number -> name of the size that varies.
        per_token: whether outputs have one value per token, else one per row.
        compared_tokens: of outputs too wide to keep (a vocabulary), how many tokens of an input
            are compared, evenly spread; None for all.
        spare_weights: beginnings of names of weights that no output depends on.
    """

    name: str
    auto_class: str
    architecture_suffix: str | tuple[str, ...]
    outputs: tuple[str, ...]
    agreement: Agreement
    form: Form = "text"
    inputs: tuple[str, ...] = ("input_ids", "attention_mask", "token_type_ids")
    dynamic_axes: tuple[tuple[int, str], ...] = ((0, "batch"), (1, "sequence"))
    per_token: bool = False
    compared_tokens: int | None = None
    spare_weights: tuple[str, ...] = ()


def _classifier(name: str, architecture_suffix: str = "") -> TaskSpec:
    return TaskSpec(
        name=name,
        auto_class="AutoModelForSequenceClassification",
        architecture_suffix=architecture_suffix,
        outputs=("logits",),
        agreement="label",
    )


def _encoder(name: str, architecture_suffix: str = "") -> TaskSpec:
    return TaskSpec(
        name=name,
        auto_class="AutoModel",
        architecture_suffix=architecture_suffix,
        outputs=("last_hidden_state",),
        agreement="direction",
        per_token=True,
        spare_weights=("pooler.",),
    )


def _rewriter(name: str, *architectures: str) -> TaskSpec:
    return TaskSpec(
        name=name,
        auto_class="AutoModelForSeq2SeqLM",
        architecture_suffix=architectures,
        outputs=("logits",),
        agreement="tokens",
        form="seq2seq",
        inputs=("input_ids", "attention_mask"),
        per_token=True,
    )


_HEARING = (
    *("Wav2Vec2", "Wav2Vec2Conformer", "Hubert", "WavLM", "UniSpeech", "UniSpeechSat"),
    *("SEW", "SEWD", "Data2VecAudio"),
)
"""Names of models that hear waveforms; their classifiers end as those of texts do."""

TASKS: Mapping[str, TaskSpec] = {
    spec.name: spec
    for spec in (
        # Before the texts: models that hear end the same.
        TaskSpec(
            name="audio-classification",
            auto_class="AutoModelForAudioClassification",
            architecture_suffix=tuple(f"{one}ForSequenceClassification" for one in _HEARING),
            outputs=("logits",),
            agreement="label",
            form="audio",
            inputs=("input_values",),
            dynamic_axes=((0, "batch"), (1, "samples")),
        ),
        TaskSpec(
            name="automatic-speech-recognition",
            auto_class="AutoModelForCTC",
            architecture_suffix="ForCTC",
            outputs=("logits",),
            agreement="tokens",
            form="audio",
            inputs=("input_values",),
            dynamic_axes=((0, "batch"), (1, "samples")),
            per_token=True,
        ),
        TaskSpec(
            name="image-classification",
            auto_class="AutoModelForImageClassification",
            architecture_suffix="ForImageClassification",
            outputs=("logits",),
            agreement="label",
            form="image",
            inputs=("pixel_values",),
            dynamic_axes=((0, "batch"),),
        ),
        _classifier("text-classification", "ForSequenceClassification"),
        TaskSpec(
            name="token-classification",
            auto_class="AutoModelForTokenClassification",
            architecture_suffix="ForTokenClassification",
            outputs=("logits",),
            agreement="tokens",
            per_token=True,
        ),
        TaskSpec(
            name="question-answering",
            auto_class="AutoModelForQuestionAnswering",
            architecture_suffix="ForQuestionAnswering",
            outputs=("start_logits", "end_logits"),
            agreement="span",
            per_token=True,
        ),
        TaskSpec(
            name="fill-mask",
            auto_class="AutoModelForMaskedLM",
            architecture_suffix="ForMaskedLM",
            outputs=("logits",),
            agreement="tokens",
            per_token=True,
            compared_tokens=8,
        ),
        # Before the plain models: a MarianMTModel is one by its ending.
        _rewriter(
            "translation",
            "MarianMTModel",
            "MBartForConditionalGeneration",
            "M2M100ForConditionalGeneration",
        ),
        _rewriter("summarization", "PegasusForConditionalGeneration"),
        _rewriter(
            "text2text-generation",
            "T5ForConditionalGeneration",
            "BartForConditionalGeneration",
        ),
        # Before the plain models: a GPT2LMHeadModel is one by its ending.
        TaskSpec(
            name="text-generation",
            auto_class="AutoModelForCausalLM",
            architecture_suffix=("ForCausalLM", "LMHeadModel"),
            outputs=("logits",),
            agreement="tokens",
            form="generation",
            inputs=("input_ids",),
        ),
        _encoder("feature-extraction", "Model"),
        _encoder("sentence-similarity"),
        _classifier("zero-shot-classification"),
        _classifier("text-ranking"),
    )
}
"""Every task that can be exported, by name."""


def task_of(config: Mapping[str, object]) -> str | None:
    """Return the name of the task that a `config.json` is for; None when there is none.

    A sequence classifier that sentence-transformers saved as a cross-encoder ranks texts. A model
    that rewrites texts, with parameters for summaries alone or for translations alone, does that.
    """
    names = _architectures(config)
    for spec in TASKS.values():
        suffix = spec.architecture_suffix
        if suffix and any(name.endswith(suffix) for name in names):
            if spec.name == "text-classification" and _is_cross_encoder(config):
                return "text-ranking"
            trained_for = _trained_for(config) if spec.form == "seq2seq" else None
            return trained_for or spec.name
    return None


def task_in(metadata: Mapping[str, object]) -> str | None:
    """Return the task that an artifact's metadata names (`task` or `pipeline_tag`), if any.

    Other projects call other things a task: a name that is none of ours is not one.
    """
    for key in ("task", "pipeline_tag"):
        name = metadata.get(key)
        if isinstance(name, str) and name in TASKS:
            return name
    return None


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
    found = task_of(config)
    if found is not None:
        return TASKS[found]
    named = ", ".join(_architectures(config)) or "none named"
    raise ExportError(
        f"The model's architecture ({named}) is for no task that can be exported.",
        hint=f"Known tasks: {known}; name one with --task if the weights have its head.",
    )


def _architectures(config: Mapping[str, object]) -> list[str]:
    names = config.get("architectures")
    return [str(name) for name in names] if isinstance(names, list) else []


def _trained_for(config: Mapping[str, object]) -> str | None:
    """Return the one task that `task_specific_params` has parameters for, if it is one.

    Its keys are tasks, also with an ending: `summarization_cnn`, `translation_en_to_de`.
    """
    parameters = config.get("task_specific_params")
    named = (
        {str(key).partition("_")[0] for key in parameters}
        if isinstance(parameters, Mapping)
        else set()
    )
    known = named & {"summarization", "translation"}
    return known.pop() if len(known) == 1 else None


def _is_cross_encoder(config: Mapping[str, object]) -> bool:
    saved = config.get("sentence_transformers")
    marked = isinstance(saved, Mapping) or "sbert_ce_default_activation_function" in config
    labels = config.get("id2label")
    return marked and isinstance(labels, Mapping) and len(labels) == 1
