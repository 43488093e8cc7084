"""Settings; the only module of the package that reads the environment."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

from registry.errors import ConfigError

DEFAULT_PROJECT = "huggingface"
"""The Trainer's own default, so that a name without a project finds what it logged."""

_DEFAULT_HOST = "https://api.wandb.ai"
_HOST_LINE = re.compile(r"base_url\s*[=:]\s*(.*)\Z", re.IGNORECASE)
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
        base_url: W&B server (`WANDB_BASE_URL`, else what `wandb login --host` wrote into the SDK's
            settings files), None for the SDK's own default.
        api_timeout_s: bound on one question to the W&B API (`RUNPORT_API_TIMEOUT_S`).
        base: base model of the PEFT adapters that are pulled, None for what each records
            (`RUNPORT_BASE`).
        allow_pickle: whether pickled weights are converted to safetensors instead of refused
            (`RUNPORT_ALLOW_PICKLE`).
        allow_references: places that references in artifacts may lead to, such as
            `https://host/path` (`RUNPORT_ALLOW_REFERENCES`, separated by spaces).
    """

    cache_dir: Path
    data_dir: Path
    offline: bool = False
    entity: str | None = None
    project: str = DEFAULT_PROJECT
    base_url: str | None = None
    api_timeout_s: int = 20
    base: str | None = None
    allow_pickle: bool = False
    allow_references: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read settings from `environ` (default: the process's own).

        Raises:
            ConfigError: a variable has a value that cannot be used.
        """
        env = os.environ if environ is None else environ
        return cls(
            cache_dir=_path(env, "RUNPORT_CACHE_DIR", _default_cache),
            data_dir=_path(env, "RUNPORT_DATA_DIR", _default_data),
            offline=parse_bool("RUNPORT_OFFLINE", env.get("RUNPORT_OFFLINE", "")),
            entity=env.get("WANDB_ENTITY") or None,
            project=env.get("WANDB_PROJECT") or DEFAULT_PROJECT,
            base_url=(env.get("WANDB_BASE_URL") or _settings_host(env) or "").rstrip("/") or None,
            api_timeout_s=_positive_int(env, "RUNPORT_API_TIMEOUT_S", 20),
            base=env.get("RUNPORT_BASE") or None,
            allow_pickle=parse_bool("RUNPORT_ALLOW_PICKLE", env.get("RUNPORT_ALLOW_PICKLE", "")),
            allow_references=tuple(env.get("RUNPORT_ALLOW_REFERENCES", "").split()),
        )


Watch = Literal["all", "gradients", "parameters"]
WATCHES: tuple[Watch, ...] = ("all", "gradients", "parameters")


class LogModel(StrEnum):
    """When a training run logs its model (`WANDB_LOG_MODEL`)."""

    END = "end"
    CHECKPOINT = "checkpoint"
    FALSE = "false"


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """What the environment decides about logging a model while it is trained.

    Attributes:
        log_model: `end` (also `true`): once, when training ends; `checkpoint`: also each saved
            checkpoint; `false`, the default: never (`WANDB_LOG_MODEL`).
        project: project of a run that the callback starts (`WANDB_PROJECT`, else `huggingface`).
        watch: what `wandb.watch` records in such a run, None for nothing (`WANDB_WATCH`).
        disabled: log nothing at all to W&B, metrics included (`WANDB_DISABLED`).
        training_state: also log what only resuming needs (optimizer, scheduler, random states) as
            an artifact of its own (`RUNPORT_LOG_TRAINING_STATE`).
        upload_timeout_s: how long the end of training waits for uploads to be confirmed
            (`RUNPORT_UPLOAD_TIMEOUT_S`).
    """

    log_model: LogModel = LogModel.FALSE
    project: str = DEFAULT_PROJECT
    watch: Watch | None = None
    disabled: bool = False
    training_state: bool = False
    upload_timeout_s: int = 3600

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> TrainingSettings:
        """Read settings from `environ` (default: the process's own).

        Raises:
            ConfigError: a variable has a value that cannot be used.
        """
        env = os.environ if environ is None else environ
        return cls(
            log_model=parse_log_model(env.get("WANDB_LOG_MODEL", "")),
            project=env.get("WANDB_PROJECT") or DEFAULT_PROJECT,
            watch=_watch(env.get("WANDB_WATCH", "")),
            disabled=parse_bool("WANDB_DISABLED", env.get("WANDB_DISABLED", "")),
            training_state=parse_bool(
                "RUNPORT_LOG_TRAINING_STATE", env.get("RUNPORT_LOG_TRAINING_STATE", "")
            ),
            upload_timeout_s=_positive_int(env, "RUNPORT_UPLOAD_TIMEOUT_S", 3600),
        )


def parse_log_model(text: str) -> LogModel:
    """Parse `WANDB_LOG_MODEL`: `true` means `end`, as W&B documents it; empty means `false`.

    Raises:
        ConfigError: the text is none of its values.
    """
    lowered = text.strip().lower()
    if lowered in _TRUE:
        return LogModel.END
    if lowered in _FALSE:
        return LogModel.FALSE
    try:
        return LogModel(lowered)
    except ValueError:
        raise ConfigError(
            f"WANDB_LOG_MODEL={text!r} is not a way to log models.",
            hint="Use end (or true), checkpoint, or false.",
        ) from None


def _watch(text: str) -> Watch | None:
    lowered = text.strip().lower()
    if lowered in _FALSE:
        return None
    for choice in WATCHES:
        if lowered == choice:
            return choice
    raise ConfigError(
        f"WANDB_WATCH={text!r} is nothing that can be watched.",
        hint="Use gradients, parameters, all, or false.",
    )


def _settings_host(env: Mapping[str, str]) -> str | None:
    """Return the server that the SDK's settings files name; the nearer file wins.

    Read here, and not asked of the SDK: a warm pull does not import it, and has to look for its
    versions under the same server as a cold one.
    """
    here = Path(env.get("WANDB_DIR") or ".").expanduser()
    near = here / (".wandb" if (here / ".wandb").is_dir() else "wandb")
    home = env.get("WANDB_CONFIG_DIR") or (env.get("HOME") and f"{env['HOME']}/.config/wandb")
    folders = [near, *([Path(home).expanduser()] if home else [])]
    for folder in folders:
        host = _host_in(folder / "settings")
        if host:
            # The default is no name of its own: most caches were filled without one.
            return None if host.rstrip("/") == _DEFAULT_HOST else host
    return None


def _host_in(file: Path) -> str | None:
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    section = host = None
    for line in lines:
        text = line.strip()
        if text.startswith("[") and text.endswith("]"):
            section = text[1:-1]
        # As `configparser` reads it, whose import takes as long as a warm pull.
        found = _HOST_LINE.match(text) if section == "default" else None
        if found:
            host = found[1].strip() or None
    return host


def _path(env: Mapping[str, str], name: str, default: Callable[[], Path]) -> Path:
    text = env.get(name)
    return Path(text).expanduser().absolute() if text else default()


def _default_cache() -> Path:
    plain = _plain_default("XDG_CACHE_HOME", ".cache")
    if plain is not None:
        return plain
    import platformdirs

    return platformdirs.user_cache_path("runport")


def _default_data() -> Path:
    plain = _plain_default("XDG_DATA_HOME", ".local/share")
    if plain is not None:
        return plain
    import platformdirs

    return platformdirs.user_data_path("runport")


def _plain_default(variable: str, below_home: str) -> Path | None:
    # What `platformdirs` says in the ordinary case. Its import would take a tenth of
    # the time of a warm pull.
    if sys.platform != "linux" or os.environ.get(variable, "").strip():
        return None
    return Path.home() / below_home / "runport"


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
