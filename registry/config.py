"""Settings; the only module of the package that reads the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from registry.errors import ConfigError

DEFAULT_PROJECT = "huggingface"
"""The Trainer's own default, so that a name without a project finds what it logged."""

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"", "0", "false", "no", "off"})


def parse_bool(name: str, text: str) -> bool:
    """Parse a boolean environment variable.

    Raises:
        ConfigError: the text is neither true-like nor false-like.
    """
    lowered = text.strip().lower()
    if lowered in _TRUE:
        return True
    if lowered in _FALSE:
        return False
    raise ConfigError(
        f"{name}={text!r} is not a boolean.", hint=f"Use {name}=1 or {name}=0, or unset it."
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the environment decides, read once and passed in.

    Attributes:
        cache_dir: root of the content-addressed store (`RUNPORT_CACHE_DIR`).
        data_dir: durable state that is no cache: backend, spools (`RUNPORT_DATA_DIR`).
        offline: never touch the network (`RUNPORT_OFFLINE`).
        entity: default W&B entity, None for the account's own (`WANDB_ENTITY`).
        project: default W&B project (`WANDB_PROJECT`, else `huggingface`).
        base_url: W&B server (`WANDB_BASE_URL`), None for the SDK's own default.
        api_timeout_s: bound on one question to the W&B API (`RUNPORT_API_TIMEOUT_S`).
    """

    cache_dir: Path
    data_dir: Path
    offline: bool = False
    entity: str | None = None
    project: str = DEFAULT_PROJECT
    base_url: str | None = None
    api_timeout_s: int = 20

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read settings from `environ` (default: the process's own).

        Raises:
            ConfigError: a variable has a value that cannot be used.
        """
        env = os.environ if environ is None else environ
        return cls(
            cache_dir=_path(env, "RUNPORT_CACHE_DIR", platformdirs.user_cache_path("runport")),
            data_dir=_path(env, "RUNPORT_DATA_DIR", platformdirs.user_data_path("runport")),
            offline=parse_bool("RUNPORT_OFFLINE", env.get("RUNPORT_OFFLINE", "")),
            entity=env.get("WANDB_ENTITY") or None,
            project=env.get("WANDB_PROJECT") or DEFAULT_PROJECT,
            base_url=(env.get("WANDB_BASE_URL") or "").rstrip("/") or None,
            api_timeout_s=_positive_int(env, "RUNPORT_API_TIMEOUT_S", 20),
        )


def _path(env: Mapping[str, str], name: str, default: Path) -> Path:
    text = env.get(name)
    return Path(text).expanduser().absolute() if text else default


def _positive_int(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name)
    if not text:
        return default
    if not text.isdigit() or int(text) == 0:
        raise ConfigError(
            f"{name}={text!r} is not a positive whole number.",
            hint=f"For example {name}={default}.",
        )
    return int(text)
