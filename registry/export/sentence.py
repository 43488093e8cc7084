"""What sentence-transformers does around a transformers model, read from its directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from registry.errors import ExportError, IntegrityError
from registry.export.dense import DenseLayer, copy_layers, dense_layer

SENTENCE_FILE = "sentence_modules.json"
"""Ours, in an export: a `SentenceModules` as JSON."""

_MODULES = "modules.json"
_MODEL = "config_sentence_transformers.json"
_MAX_JSON_BYTES = 1024 * 1024
_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
# The order in which sentence-transformers puts several together.
_LEGACY_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


class SentenceModules(msgspec.Struct, frozen=True, kw_only=True):
    """How token vectors become one embedding.

    Attributes:
        pooling: modes, in the order in which their vectors are joined: `cls`, `max`, `mean`,
            `mean_sqrt_len_tokens`, `weightedmean`, `lasttoken`.
        dense: layers over what pooling made, in their order.
        normalize: whether the embedding is scaled to length 1.
        max_tokens: to which texts are cut; None leaves that to the model.
        lowercase: whether texts are lower-cased first.
        prompts: texts put before an input, by name.
        default_prompt: name of the one that is put there unasked.
        include_prompt: whether the prompt's tokens are pooled too.
    """

    pooling: tuple[str, ...] = ("mean",)
    dense: tuple[DenseLayer, ...] = ()
    normalize: bool = False
    max_tokens: int | None = None
    lowercase: bool = False
    prompts: dict[str, str] = {}
    default_prompt: str | None = None
    include_prompt: bool = True


def read_sentence_modules(path: Path) -> SentenceModules | None:
    """Return what the directory at `path` says, or None if sentence-transformers did not write it.

    Raises:
        IntegrityError: a file is missing or broken.
        ExportError: it has a module that is not known here.
    """
    ours = path / SENTENCE_FILE
    if ours.is_file():
        return _convert(_read(ours), ours.name)
    if not (path / _MODULES).is_file():
        return None
    modules = _read(path / _MODULES)
    if not isinstance(modules, list):
        raise IntegrityError(f"{_MODULES} is not a list.", hint="Log the model again.")
    return _collect(path, [_module(module) for module in modules])


def read_cross_encoder(path: Path) -> dict[str, str] | None:
    """Return how sentence-transformers saved a cross-encoder at `path`, or None if it did not.

    Since its version 6 a file of its own says so; before, `config.json` had the same values under
    the key `sentence_transformers`, which is where they belong for every reader here.

    Raises:
        IntegrityError: the file is broken.
    """
    saved = _read(path / _MODEL, required=False)
    if not isinstance(saved, dict) or saved.get("model_type") != "CrossEncoder":
        return None
    return {"activation_fn": str(saved.get("activation_fn") or "")}


def write_sentence_modules(modules: SentenceModules, source: Path, directory: Path) -> None:
    """Write `SENTENCE_FILE` into `directory`, and the dense layers of the model at `source`.

    Raises:
        ExportError: a dense layer has no safetensors.
    """
    dense = copy_layers(modules.dense, source, directory)
    ours = msgspec.structs.replace(modules, dense=dense)
    (directory / SENTENCE_FILE).write_bytes(msgspec.json.encode(ours))


def _collect(path: Path, modules: list[tuple[str, str]]) -> SentenceModules:
    kinds = [kind for kind, _ in modules]
    behind = kinds[2:-1] if kinds[-1:] == ["Normalize"] else kinds[2:]
    if kinds[:2] != ["Transformer", "Pooling"] or set(behind) - {"Dense"}:
        raise ExportError(
            f"The sentence-transformers modules {', '.join(kinds) or '(none)'} cannot be served.",
            hint="Served are Transformer, Pooling and, behind them, Dense and Normalize.",
        )
    if modules[0][1] not in ("", "."):
        raise ExportError(
            f"The transformers model is in the folder {modules[0][1]!r} and not at the root.",
            hint="Save it with sentence-transformers 2 or later.",
        )
    pooling = _read(path / modules[1][1] / "config.json")
    transformer = _read(path / "sentence_bert_config.json", required=False)
    prompts = _read(path / _MODEL, required=False)
    layers = [
        (folder, _read(path / folder / "config.json")) for _, folder in modules[2:][: len(behind)]
    ]
    read = (pooling, transformer, prompts, *(config for _, config in layers))
    if not all(isinstance(one, dict) for one in read):
        raise IntegrityError("A sentence-transformers file is no JSON object.")
    document = {
        "pooling": _pooling(pooling),
        "dense": [dense_layer(folder, config) for folder, config in layers],
        "normalize": "Normalize" in kinds,
        "max_tokens": transformer.get("max_seq_length"),
        "lowercase": transformer.get("do_lower_case") or False,
        "prompts": prompts.get("prompts") or {},
        "default_prompt": prompts.get("default_prompt_name"),
        "include_prompt": pooling.get("include_prompt", True),
    }
    return _convert(document, "its configuration")


def _module(module: object) -> tuple[str, str]:
    """Return the class's own name and the folder of a module."""
    kind = module.get("type") if isinstance(module, Mapping) else None
    folder = module.get("path", "") if isinstance(module, Mapping) else None
    if not isinstance(kind, str) or not isinstance(folder, str):
        raise IntegrityError(f"{_MODULES} names no type and path.", hint="Log the model again.")
    if folder.startswith("/") or ".." in Path(folder).parts:
        raise IntegrityError(f"{_MODULES} leads out of its directory: {folder!r}.")
    return kind.rpartition(".")[2], folder


def _pooling(config: Mapping[str, Any]) -> list[str]:
    named = config.get("pooling_mode")
    if named is None:
        modes = [mode for key, mode in _LEGACY_MODES.items() if config.get(key)] or ["mean"]
    else:
        modes = [named] if isinstance(named, str) else list(named)
    unknown = [mode for mode in modes if mode not in _MODES]
    if unknown:
        raise ExportError(
            f"The pooling {unknown[0]!r} is not known.", hint=f"Known: {', '.join(_MODES)}."
        )
    return modes


def _convert(document: object, name: str) -> SentenceModules:
    try:
        return msgspec.convert(document, SentenceModules, from_attributes=True)
    except msgspec.ValidationError as error:
        raise IntegrityError(
            f"The sentence-transformers model is broken: {name}: {error}"
        ) from error


def _read(path: Path, *, required: bool = True) -> Any:
    if not required and not path.is_file():
        return {}
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise IntegrityError(f"{path.name} is larger than {_MAX_JSON_BYTES} bytes.")
        return msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise IntegrityError(
            f"{path.name} of the sentence-transformers model cannot be read: {error}",
            hint="Log the model again.",
        ) from error
