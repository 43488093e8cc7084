"""A PEFT adapter with its base model beside it: checked without peft, then merged with it.

Of PEFT's methods only those whose weights can be merged exactly are taken, and
only settings that neither import modules nor read other files.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from registry.adapter import ADAPTER_CONFIG, BASE_FOLDER, has_base
from registry.errors import (
    ExportError,
    IntegrityError,
    NotFoundError,
    UnavailableError,
    UnsafeContentError,
)

WEIGHTS = "adapter_model.safetensors"

_METHODS = frozenset({"LORA", "ADALORA", "LOHA", "LOKR", "IA3"})
# Each of these makes peft import a module, or read a file, that the adapter names.
_UNSAFE_SETTINGS = ("megatron_config", "corda_config", "loraga_config")
# With these, loading changes the base's own weights first, and not the same way everywhere.
_PLAIN_STARTS = (True, False, "gaussian", "orthogonal", None)
_MISSING_WARNING = "Found missing adapter keys"
_PEFT_PREFIX = "base_model.model."


def read_config(path: Path) -> dict[str, Any]:
    """Return the `adapter_config.json` of the folder.

    Raises:
        IntegrityError: it is not a JSON object.
    """
    try:
        return msgspec.json.decode((path / ADAPTER_CONFIG).read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise IntegrityError(
            f"{ADAPTER_CONFIG} is not a JSON object: {error}.", hint="Log the adapter again."
        ) from error


def base_folder(path: Path, config: Mapping[str, Any]) -> Path:
    """Return the folder of the adapter's base model, after checking what the adapter is.

    Args:
        path: the adapter's folder, as `registry.pull` completes it.
        config: its `adapter_config.json`.

    Raises:
        NotFoundError: the base or the adapter's weights are not there.
        ExportError: its method cannot be merged.
        UnsafeContentError: its weights are a pickle, or its settings read other files.
    """
    if not has_base(path):
        raise NotFoundError(
            "The directory holds a PEFT adapter, and its base model is not there.",
            hint="Pull it with its base model: --base run-bert:v0, or --base FOLDER.",
        )
    method = str(config.get("peft_type"))
    if method not in _METHODS:
        raise ExportError(
            f"An adapter of the kind {method} cannot be merged into its base model.",
            hint=f"These can: {', '.join(sorted(_METHODS))}.",
        )
    for name in _UNSAFE_SETTINGS:
        if config.get(name):
            raise UnsafeContentError(
                f"{ADAPTER_CONFIG} has the setting {name!r}, which makes peft load other files.",
                hint="It only matters in training: remove it and log the adapter again.",
            )
    if config.get("init_lora_weights", True) not in _PLAIN_STARTS:
        raise ExportError(
            f"The adapter starts from a changed base model ({config['init_lora_weights']!r}).",
            hint="Save it with `path_initial_model_for_weight_conversion`, or merge it yourself.",
        )
    if not (path / WEIGHTS).is_file():
        if (path / "adapter_model.bin").is_file():
            raise UnsafeContentError(
                "The adapter's weights are a pickle (adapter_model.bin).",
                hint="Save it with `safe_serialization=True`, the default.",
            )
        raise NotFoundError(f"{path} has no {WEIGHTS}.", hint="Log the adapter again.")
    return path / BASE_FOLDER


def check_match(config: Mapping[str, Any], base_config: Mapping[str, Any]) -> None:
    """Raise ExportError if the adapter was made for another kind of model than its base is."""
    own, other = config.get("model_type"), base_config.get("model_type")
    if own != other:
        raise ExportError(
            f"The adapter was made for a model of the type {own!r}; its base is {other!r}.",
            hint="Name the model that it was trained on with --base.",
        )


def adapted_names(path: Path) -> frozenset[str]:
    """Return the base model's parameters that the adapter replaces whole, such as its head."""
    from safetensors import safe_open

    with safe_open(path / WEIGHTS, framework="np") as weights:
        return frozenset(str(name).removeprefix(_PEFT_PREFIX) for name in weights.keys())  # noqa: SIM118 - no mapping


def merge(model: Any, path: Path) -> Any:
    """Merge the adapter at `path` into `model`, in place; return the merged model.

    Raises:
        UnavailableError: peft is not installed.
        ExportError: the adapter does not fit the model.
    """
    try:
        from peft import PeftModel
    except ImportError as error:
        raise UnavailableError(
            "An adapter needs peft, which is not installed.", hint="Install runport[export]."
        ) from error
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            merged = PeftModel.from_pretrained(model, str(path)).merge_and_unload(safe_merge=True)
        # peft raises ValueError, RuntimeError, KeyError, TypeError and more.
        except Exception as error:
            raise _misfit(str(error)) from error
    lost = [str(one.message) for one in heard if _MISSING_WARNING in str(one.message)]
    if lost:
        raise _misfit(lost[0])
    return merged


def _misfit(why: str) -> ExportError:
    lines = [line.strip() for line in why.strip().splitlines() if line.strip()]
    return ExportError(
        f"The adapter does not fit its base model: {' '.join(lines[:2])[:300]}",
        hint="Name the model that it was trained on with --base.",
    )
