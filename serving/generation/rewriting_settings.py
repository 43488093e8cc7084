"""What a model asks for its answers, and what a request asks on top of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from registry import generation_settings, translation_tasks
from serving.errors import InvalidInputError, LoadError
from serving.tasks.directory import ModelDirectory
from serving.tasks.parameters import check_known, choice, truth, whole_number

Pair = tuple[str | None, str | None]

MAX_BEAMS = 16
_MAX_JSON_BYTES = 1024 * 1024
_TRUNCATIONS = ("do_not_truncate", "longest_first", "only_first")

_DEFAULTS: Mapping[str, Any] = {
    "do_sample": False,
    "early_stopping": False,
    "length_penalty": 1.0,
    "max_length": 20,
    "num_return_sequences": 1,
}
_UNSUPPORTED: Mapping[str, Any] = {
    "constraints": None,
    "diversity_penalty": 0.0,
    "dola_layers": None,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "force_words_ids": None,
    "guidance_scale": 1,
    "num_beam_groups": 1,
    "penalty_alpha": None,
    "renormalize_logits": False,
    "sequence_bias": None,
    "stop_strings": None,
    "typical_p": 1.0,
    "watermarking_config": None,
}
"""Settings that change answers and that no rule here knows, with the values that change nothing."""

_WHOLE: Mapping[str, int] = {
    "encoder_no_repeat_ngram_size": 0,
    "max_length": 2,
    "max_new_tokens": 1,
    "min_length": 0,
    "min_new_tokens": 0,
    "no_repeat_ngram_size": 0,
    "num_beams": 1,
    "num_return_sequences": 1,
    "top_k": 0,
}
"""Parameters that are whole numbers, with the least that each may be."""

_FRACTIONS: Mapping[str, tuple[float, float]] = {
    "encoder_repetition_penalty": (1e-3, 1e3),
    "length_penalty": (-100.0, 100.0),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (1e-3, 1e3),
    "temperature": (1e-3, 1e3),
    "top_p": (0.0, 1.0),
}
"""Parameters that are any numbers, with the least and the most."""

_Token = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
_Count = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
_Penalty = Annotated[float, msgspec.Meta(gt=0)]


class _Declared(msgspec.Struct):
    """What the settings of a model may hold, where they hold it."""

    bad_words_ids: list[list[_Token]] | None = None
    begin_suppress_tokens: list[_Token] | None = None
    bos_token_id: _Token | None = None
    decoder_start_token_id: _Token | None = None
    do_sample: bool | None = None
    early_stopping: bool | Literal["never"] | None = None
    encoder_no_repeat_ngram_size: _Count | None = None
    encoder_repetition_penalty: _Penalty | None = None
    eos_token_id: _Token | list[_Token] | None = None
    exponential_decay_length_penalty: tuple[_Count, float] | None = None
    forced_bos_token_id: _Token | None = None
    forced_eos_token_id: _Token | list[_Token] | None = None
    length_penalty: float | None = None
    max_length: Annotated[int, msgspec.Meta(ge=2, lt=2**31)] | None = None
    max_new_tokens: Annotated[int, msgspec.Meta(ge=1, lt=2**31)] | None = None
    min_length: _Count | None = None
    min_new_tokens: _Count | None = None
    min_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    no_repeat_ngram_size: _Count | None = None
    num_beams: Annotated[int, msgspec.Meta(ge=1, le=MAX_BEAMS)] | None = None
    num_return_sequences: Annotated[int, msgspec.Meta(ge=1, le=MAX_BEAMS)] | None = None
    prefix: str | None = None
    remove_invalid_values: bool | None = None
    repetition_penalty: _Penalty | None = None
    suppress_tokens: list[_Token] | None = None
    temperature: _Penalty | None = None
    top_k: _Count | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None


_SWITCHES = ("clean_up_tokenization_spaces", "do_sample")
_OTHERS = ("early_stopping", "generate_parameters", "seed", "truncation")
_LANGUAGES = ("src_lang", "tgt_lang")
_LENGTHS = ("max_length", "max_new_tokens")


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Settings of a model for one task.

    Attributes:
        general: without any languages, by transformers' names.
        pairs: those for each pair of languages that has its own.
        first: the token that every answer begins with.
        ends: tokens that end an answer.
    """

    general: Mapping[str, Any]
    pairs: Mapping[Pair, Mapping[str, Any]]
    first: int
    ends: tuple[int, ...]

    @classmethod
    def read(cls, model: ModelDirectory, task: str) -> ModelSettings:
        """Read the settings of a model directory for a task.

        Raises:
            LoadError: a setting is unknown here and would change answers, or the token that begins
                an answer is not named.
        """
        found = _read_object(model.path / "generation_config.json")
        general = _checked(generation_settings(model.config, found, task))
        pairs: dict[Pair, Mapping[str, Any]] = {}
        if task == "translation":
            for key in translation_tasks(model.config):
                languages = key.removeprefix("translation_").split("_to_")
                if len(languages) == 2:
                    source, target = languages
                    specific = generation_settings(model.config, found, key)
                    pairs[source, target] = _checked(specific)
        if len(pairs) == 1:
            general = next(iter(pairs.values()))
        first = general.get("decoder_start_token_id", general.get("bos_token_id"))
        if not isinstance(first, int):
            raise LoadError(
                "Nothing says with which token an answer begins.",
                hint="Set decoder_start_token_id in generation_config.json and log it again.",
            )
        end = general.get("eos_token_id")
        ends = tuple(end) if isinstance(end, list) else () if end is None else (end,)
        return cls(general, pairs, first, ends)

    def has(self, pair: Pair) -> bool:
        """Return whether there are settings of their own for a pair of languages."""
        return pair in self.pairs

    def of(self, pair: Pair) -> Mapping[str, Any]:
        """Return the settings for a pair of languages.

        Raises:
            InvalidInputError: the model has settings for other pairs only.
        """
        if pair in self.pairs:
            return self.pairs[pair]
        if pair != (None, None) and self.pairs:
            known = ", ".join(f"{source} to {target}" for source, target in sorted(self.pairs))
            raise InvalidInputError(
                "The model does not translate between these languages.", hint=f"It knows {known}."
            )
        return self.general


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a request asks for.

    Attributes:
        settings: by transformers' names; only those that it names.
        tidy: whether spaces before punctuation are taken out.
        truncates: whether a text that is too long is cut.
        source_language, target_language: of a translation.
        seed: of what is drawn; None draws anew every time.
    """

    settings: Mapping[str, Any]
    tidy: bool
    truncates: bool
    source_language: str | None
    target_language: str | None
    seed: int | None

    @property
    def names_length(self) -> bool:
        """Whether it asks for a length."""
        return any(name in self.settings for name in _LENGTHS)

    def over(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Return the settings with the wishes over them.

        Raises:
            InvalidInputError: they do not go together.
        """
        if self.names_length:
            # The model's own choice of the other one must not win over the request's.
            settings = {name: one for name, one in settings.items() if name not in _LENGTHS}
        merged = {**_DEFAULTS, **settings, **self.settings}
        beams, returned = merged["num_beams"], merged["num_return_sequences"]
        if returned > 1 and beams < returned and (beams > 1 or not merged["do_sample"]):
            raise InvalidInputError(
                f"num_return_sequences is {returned} with {beams} beams.",
                hint="Ask for as many beams with num_beams, or set do_sample with num_beams 1.",
            )
        return merged


def read_wishes(task: str, parameters: Mapping[str, object]) -> Wishes:
    """Read the parameters of a request.

    Raises:
        InvalidInputError: one is unknown, or is not what it should be.
    """
    nested = parameters.get("generate_parameters")
    if nested is not None and not isinstance(nested, dict):
        raise InvalidInputError("generate_parameters is no object.")
    given = {
        name: value for name, value in {**parameters, **(nested or {})}.items() if value is not None
    }
    languages = _LANGUAGES if task == "translation" else ()
    check_known(given, (*_WHOLE, *_FRACTIONS, *_SWITCHES, *_OTHERS, *languages))
    settings: dict[str, Any] = {}
    for name, least in _WHOLE.items():
        if name in given:
            settings[name] = whole_number(given, name, None, least=least)
    for name, (lowest, highest) in _FRACTIONS.items():
        if name in given:
            settings[name] = _number(given[name], name, lowest, highest)
    if "do_sample" in given:
        settings["do_sample"] = truth(given, "do_sample", False)
    if "early_stopping" in given:
        settings["early_stopping"] = _early_stopping(given["early_stopping"])
    for name in ("num_beams", "num_return_sequences"):
        if settings.get(name, 1) > MAX_BEAMS:
            raise InvalidInputError(f"{name} is more than {MAX_BEAMS}.")
    return Wishes(
        settings=settings,
        tidy=truth(given, "clean_up_tokenization_spaces", False),
        truncates=choice(given, "truncation", "longest_first", _TRUNCATIONS) != _TRUNCATIONS[0],
        source_language=_language(given, "src_lang"),
        target_language=_language(given, "tgt_lang"),
        seed=whole_number(given, "seed", None, least=0),
    )


def _number(value: object, name: str, lowest: float, highest: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidInputError(f"{name} is no number.")
    if not lowest <= value <= highest:
        raise InvalidInputError(f"{name} is not between {lowest:g} and {highest:g}.")
    return float(value)


def _early_stopping(value: object) -> object:
    if value == "never" or isinstance(value, bool):
        return value
    raise InvalidInputError('early_stopping is none of true, false and "never".')


def _language(given: Mapping[str, object], name: str) -> str | None:
    value = given.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidInputError(f"{name} is no text.")
    return value


def _checked(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings.

    Raises:
        LoadError: one of them would change answers in a way that is not known here, or is not what
            it should be.
    """
    try:
        msgspec.convert(settings, _Declared)
    except msgspec.ValidationError as error:
        raise LoadError(
            f"The model's settings for its answers cannot be used: {error}",
            hint="Correct generation_config.json and log the model again.",
        ) from error
    for name, idle in _UNSUPPORTED.items():
        if settings.get(name, idle) not in (idle, None):
            raise LoadError(
                f"The model's settings ask for {name}, which cannot be served.",
                hint="Take it out of generation_config.json and log the model again.",
            )
    return settings


def _read_object(path: Path) -> dict[str, Any] | None:
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise LoadError(f"{path.name} is larger than {_MAX_JSON_BYTES} bytes.")
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LoadError(f"{path.name} cannot be read: {error}", hint="Pull it again.") from error
