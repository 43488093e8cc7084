"""How a model with encoder and decoder wants its answers made; pure.

Transformers up to version 4 had pipelines for these tasks. What they applied, in this order, is
kept: the request; `task_specific_params` of `config.json`; `generation_config.json`, or without one
`config.json`; the pipeline's own defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PIPELINE_MAX_NEW_TOKENS = 256
PIPELINE_NUM_BEAMS = 4

_RELATIVE_TARGET_TOKENS = 4096
"""Of models without a table of positions, whose answers have no length of their own."""

_RELATIVE_KEY = "relative_attention_num_buckets"
_DEFAULT_POSITIONS = 1024


def max_target_tokens(config: Mapping[str, Any]) -> int:
    """Return the most tokens that an answer may have, its first one included."""
    if _RELATIVE_KEY in config:
        return _RELATIVE_TARGET_TOKENS
    positions = config.get("max_position_embeddings")
    return positions if isinstance(positions, int) and positions > 1 else _DEFAULT_POSITIONS


def generation_settings(
    config: Mapping[str, Any], generation_config: Mapping[str, Any] | None, task: str
) -> dict[str, Any]:
    """Return the settings of a task by transformers' names, and `prefix` if the task has one.

    Args:
        config: `config.json`.
        generation_config: `generation_config.json`; None when there is none.
        task: its name, or a key of `task_specific_params` such as `translation_en_to_de`.
    """
    general = config if generation_config is None else generation_config
    settings = {name: value for name, value in general.items() if value is not None}
    if isinstance(config.get("prefix"), str):
        settings["prefix"] = config["prefix"]
    else:
        settings.pop("prefix", None)
    specific = config.get("task_specific_params")
    chosen = specific.get(task) if isinstance(specific, Mapping) else None
    if isinstance(chosen, Mapping):
        settings |= chosen
    return _with_defaults(settings)


def translation_tasks(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the keys of `task_specific_params` that name a pair of languages."""
    specific = config.get("task_specific_params")
    named = specific if isinstance(specific, Mapping) else {}
    return tuple(key for key in map(str, named) if key.startswith("translation_"))


def _with_defaults(settings: dict[str, Any]) -> dict[str, Any]:
    settings.setdefault("num_beams", PIPELINE_NUM_BEAMS)
    if "max_length" not in settings:
        settings.setdefault("max_new_tokens", PIPELINE_MAX_NEW_TOKENS)
    return settings
