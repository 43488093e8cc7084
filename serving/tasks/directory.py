"""The JSON files of a model directory, read once and bounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from registry import read_cross_encoder
from serving.errors import LoadError

_MAX_JSON_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ModelDirectory:
    """What serving reads of a model directory.

    Attributes:
        path: the directory.
        config: `config.json`.
        tokenizer_config: `tokenizer_config.json`; empty when there is none.
        exported_task: what `export.json` says; None for a version as it was logged.
        exported_max_tokens: likewise.
    """

    path: Path
    config: Mapping[str, Any]
    tokenizer_config: Mapping[str, Any]
    exported_task: str | None
    exported_max_tokens: int | None


def read_directory(path: Path) -> ModelDirectory:
    """Read the JSON files of the model directory at `path`.

    Raises:
        LoadError: `config.json` is missing, or a file is no JSON object.
    """
    config = _read_object(path / "config.json")
    if config is None:
        raise LoadError(f"{path} has no config.json.", hint="Pull the version again.")
    crossed = read_cross_encoder(path)
    if crossed is not None:
        config["sentence_transformers"] = crossed
    record = _read_object(path / "export.json") or {}
    task, tokens = record.get("task"), record.get("max_tokens")
    return ModelDirectory(
        path=path,
        config=config,
        tokenizer_config=_read_object(path / "tokenizer_config.json") or {},
        exported_task=task if isinstance(task, str) else None,
        exported_max_tokens=tokens if isinstance(tokens, int) else None,
    )


def _read_object(path: Path) -> dict[str, Any] | None:
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise LoadError(f"{path.name} is larger than {_MAX_JSON_BYTES} bytes.")
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LoadError(f"{path.name} cannot be read: {error}", hint="Pull it again.") from error
