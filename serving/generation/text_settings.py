"""How a text is to grow: what the request asks for, over what the model's settings say.

As transformers' pipeline reads them: what neither says is 256 new tokens, drawn at temperature 0.7.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from serving.errors import InvalidInputError, LoadError
from serving.tasks.directory import ModelDirectory
from serving.tasks.parameters import check_known, truth, whole_number

MAX_ANSWERS = 8
_MAX_STOPS = 16
_MAX_STOP_CHARACTERS = 256
_MAX_JSON_BYTES = 1024 * 1024
_PIPELINE_TOKENS = 256
_PIPELINE_TEMPERATURE = 0.7

_WHOLE: Mapping[str, int] = {
    "max_new_tokens": 1,
    "max_length": 1,
    "min_new_tokens": 0,
    "no_repeat_ngram_size": 0,
    "num_return_sequences": 1,
    "top_k": 0,
}
"""Parameters that are whole numbers, with the least that each may be."""

_FRACTIONS: Mapping[str, tuple[float, float]] = {
    "temperature": (1e-3, 1e3),
    "top_p": (1e-6, 1.0),
    "min_p": (0.0, 1.0),
    "typical_p": (1e-6, 1.0),
    "repetition_penalty": (1e-3, 1e3),
}
"""Parameters that are any numbers, with the least and the most."""

_IDLE: Mapping[str, tuple[object, ...]] = {
    "adapter_id": (),
    "best_of": (1,),
    "frequency_penalty": (0,),
    "grammar": (),
    "top_n_tokens": (0,),
    "watermark": (False,),
}
"""What clients of text-generation-inference may send, with the values that ask for nothing."""

_UNSUPPORTED: Mapping[str, Any] = {
    "begin_suppress_tokens": None,
    "constraints": None,
    "diversity_penalty": 0.0,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "exponential_decay_length_penalty": None,
    "force_words_ids": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "guidance_scale": 1,
    "num_beam_groups": 1,
    "num_beams": 1,
    "penalty_alpha": None,
    "remove_invalid_values": False,
    "renormalize_logits": False,
    "sequence_bias": None,
    "stop_strings": None,
    "top_h": None,
    "watermarking_config": None,
}
"""Settings that change answers and are not known here, with the values that change nothing."""

_SWITCHES = ("details", "decoder_input_details", "do_sample", "return_full_text")
_OTHERS = ("seed", "stop", "stop_sequence", "truncate")

_Token = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
_Count = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
_Positive = Annotated[float, msgspec.Meta(gt=0)]


class _Declared(msgspec.Struct):
    """What the settings of a model may hold, where they hold it."""

    bad_words_ids: list[list[_Token]] | None = None
    bos_token_id: _Token | None = None
    do_sample: bool | None = None
    eos_token_id: _Token | list[_Token] | None = None
    max_length: _Count | None = None
    max_new_tokens: _Count | None = None
    min_length: _Count | None = None
    min_new_tokens: _Count | None = None
    min_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    no_repeat_ngram_size: _Count | None = None
    repetition_penalty: _Positive | None = None
    suppress_tokens: list[_Token] | None = None
    temperature: _Positive | None = None
    top_k: _Count | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    typical_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for.

    Attributes:
        settings: by transformers' names; only those that were sent.
        stops: strings that end the text.
        seed: of the draws; None for another one each time.
        truncate: last tokens of the prompt that are kept; None keeps all.
        full_text: whether the answer begins with the prompt; None leaves it to the answer's form.
        details: whether each token is wanted.
        prompt_details: whether the tokens of the prompt are wanted too.
    """

    settings: Mapping[str, Any]
    stops: tuple[str, ...]
    seed: int | None
    truncate: int | None
    full_text: bool | None
    details: bool
    prompt_details: bool

    def over(self, model: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of the model with these over them, and the pipeline's defaults.

        Raises:
            InvalidInputError: several answers are asked for that would all be the same.
        """
        settings = {**model, **self.settings}
        if "max_new_tokens" in self.settings or "max_length" in self.settings:
            # The model's own choice of the other one must not win over the request's.
            for name in {"max_new_tokens", "max_length"} - set(self.settings):
                settings.pop(name, None)
        settings.setdefault("do_sample", True)
        if settings["do_sample"]:
            settings.setdefault("temperature", _PIPELINE_TEMPERATURE)
        if "max_length" not in settings:
            settings.setdefault("max_new_tokens", _PIPELINE_TOKENS)
        settings.setdefault("num_return_sequences", 1)
        if settings["num_return_sequences"] > 1 and not settings["do_sample"]:
            raise InvalidInputError(
                "Several answers without drawing would all be the same.", hint="Set do_sample."
            )
        return settings


def read_asked(parameters: Mapping[str, object]) -> Asked:
    """Read the parameters of a request; those that are null count as not sent.

    Raises:
        InvalidInputError: one is unknown, or is not what it should be.
    """
    given = {name: value for name, value in parameters.items() if value is not None}
    check_known(given, (*_WHOLE, *_FRACTIONS, *_SWITCHES, *_OTHERS, *_IDLE))
    for name in _IDLE.keys() & given.keys():
        if given[name] not in _IDLE[name]:
            raise InvalidInputError(f"{name} is not supported.", hint="Leave it out.")
    settings: dict[str, Any] = {
        name: whole_number(given, name, None, least=least)
        for name, least in _WHOLE.items()
        if name in given
    }
    for name, (lowest, highest) in _FRACTIONS.items():
        if name in given:
            settings[name] = _number(given[name], name, lowest, highest)
    if "do_sample" in given:
        settings["do_sample"] = truth(given, "do_sample", False)
    if settings.get("num_return_sequences", 1) > MAX_ANSWERS:
        raise InvalidInputError(f"num_return_sequences is more than {MAX_ANSWERS}.")
    return Asked(
        settings=settings,
        stops=_stops(given),
        seed=_seed(given),
        truncate=whole_number(given, "truncate", None),
        full_text=truth(given, "return_full_text", False) if "return_full_text" in given else None,
        details=truth(given, "details", False),
        prompt_details=truth(given, "decoder_input_details", False),
    )


def read_model_settings(model: ModelDirectory) -> dict[str, Any]:
    """Return the settings of `generation_config.json`, else of `config.json`; no nulls.

    Raises:
        LoadError: one of them cannot be used, or would change answers in a way that is not known.
    """
    path = model.path / "generation_config.json"
    declared: Mapping[str, Any] = model.config
    if path.is_file():
        try:
            if path.stat().st_size > _MAX_JSON_BYTES:
                raise LoadError(f"{path.name} is larger than {_MAX_JSON_BYTES} bytes.")
            declared = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise LoadError(
                f"{path.name} cannot be read: {error}", hint="Pull it again."
            ) from error
    for name, idle in _UNSUPPORTED.items():
        if declared.get(name, idle) not in (idle, None):
            raise LoadError(
                f"The model's settings ask for {name}, which cannot be served.",
                hint="Take it out of generation_config.json and log the model again.",
            )
    try:
        msgspec.convert(declared, _Declared)
    except msgspec.ValidationError as error:
        raise LoadError(
            f"The model's settings for its answers cannot be used: {error}",
            hint="Correct generation_config.json and log the model again.",
        ) from error
    known = _Declared.__struct_fields__
    return {name: declared[name] for name in known if declared.get(name) is not None}


def _number(value: object, name: str, lowest: float, highest: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidInputError(f"{name} is no number.")
    if not lowest <= value <= highest:
        raise InvalidInputError(f"{name} is not between {lowest:g} and {highest:g}.")
    return float(value)


def _stops(given: Mapping[str, object]) -> tuple[str, ...]:
    value = given.get("stop", given.get("stop_sequence", []))
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(one, str) and one for one in stops):
        raise InvalidInputError("stop is no list of texts.", hint='Send for example ["\\n\\n"].')
    if len(stops) > _MAX_STOPS or any(len(one) > _MAX_STOP_CHARACTERS for one in stops):
        raise InvalidInputError(
            f"stop takes at most {_MAX_STOPS} texts of at most {_MAX_STOP_CHARACTERS} characters."
        )
    return tuple(stops)


def _seed(given: Mapping[str, object]) -> int | None:
    value = given.get("seed")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**64:
        raise InvalidInputError("seed is not a whole number from 0 on.")
    return value
