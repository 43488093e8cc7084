"""A model directory, read and checked before anything is loaded; needs no torch.

Nothing in the directory is trusted: JSON is bounded, code named by configuration is refused,
weights are safetensors or nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from registry.adapter import is_adapter
from registry.errors import ExportError, IntegrityError, NotFoundError, UnsafeContentError
from registry.export.adapter import WEIGHTS as ADAPTER_WEIGHTS
from registry.export.adapter import base_folder, check_match, read_config
from registry.export.lengths import max_tokens
from registry.export.preprocessing import read_audio_settings, read_image_settings
from registry.export.safetensors import check_safetensors
from registry.export.sentence import (
    SentenceModules,
    read_cross_encoder,
    read_sentence_modules,
)
from registry.export.tasks import TaskSpec, choose_task

_MAX_JSON_BYTES = 64 * 1024 * 1024
_WEIGHTS = "model.safetensors"
_WEIGHTS_INDEX = "model.safetensors.index.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_TOKENIZER_FILES = (
    *("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model"),
    *("sentencepiece.bpe.model", "tokenizer.model"),
)
_INTERNAL_KEY = re.compile(r"_.*_internal")


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model directory that passed the checks.

    Attributes:
        path: the directory.
        config: `config.json`, with what sentence-transformers says of a cross-encoder.
        tokenizer_config: `tokenizer_config.json`, empty when there is none.
        task: what the model is exported for.
        weight_files: names of the safetensors files.
        weights_bytes: bytes of all tensors.
        max_tokens: longest input in tokens, special tokens included.
        base: of a PEFT adapter: the folder of its base model; None for a whole model.
        sentence: how sentence-transformers would turn its outputs into an embedding, if it is one
            of its models and the task wants embeddings.
    """

    path: Path
    config: Mapping[str, Any]
    tokenizer_config: Mapping[str, Any]
    task: TaskSpec
    weight_files: tuple[str, ...]
    weights_bytes: int
    max_tokens: int
    base: Path | None = None
    sentence: SentenceModules | None = None


def read_source(path: Path, task: str | None = None) -> ModelSource:
    """Read and check the model directory at `path`.

    Raises:
        NotFoundError: no directory, no `config.json`, or no weights.
        IntegrityError: JSON or a safetensors header that is broken.
        UnsafeContentError: only pickled weights, or configuration that names code.
        ExportError: no task fits, no tokenizer, labels that contradict each other, an adapter
            that cannot be merged.
        UsageError: `task` is not known.
    """
    if not path.is_dir():
        raise NotFoundError(f"{path} is not a directory.", hint="Pull the version first.")
    base = _base(path)
    config = _read_json(path / "config.json", required=True)
    tokenizer_config = _read_json(path / "tokenizer_config.json", required=False)
    for name, document in (("config.json", config), ("tokenizer_config.json", tokenizer_config)):
        _refuse_code(name, document)
    crossed = read_cross_encoder(path)
    if crossed is not None:
        config["sentence_transformers"] = crossed
    spec = choose_task(config, task)
    _check_kind(config)
    _check_labels(config)
    _check_preprocessing(path, spec, config)
    weight_files = _weight_files(path) if base is None else _adapted_files(base, config)
    sentence = read_sentence_modules(path) if spec.agreement == "direction" else None
    return ModelSource(
        path=path,
        config=config,
        tokenizer_config=tokenizer_config,
        task=spec,
        weight_files=weight_files,
        weights_bytes=sum(check_safetensors(path / name) for name in weight_files),
        max_tokens=max_tokens(config, tokenizer_config, sentence.max_tokens if sentence else None),
        base=base,
        sentence=sentence,
    )


def _check_preprocessing(path: Path, spec: TaskSpec, config: Mapping[str, Any]) -> None:
    """Raise if what turns an input into arrays is missing, broken or not known."""
    if spec.form == "image":
        read_image_settings(path)
        return
    if spec.form == "audio":
        read_audio_settings(path)
        if spec.per_token and not (path / "vocab.json").is_file():
            raise ExportError(
                f"{path} has no vocab.json, the tokens that its model hears.",
                hint="Give the Trainer the processor as `processing_class` so that it saves it.",
            )
        return
    if not any((path / name).is_file() for name in _TOKENIZER_FILES):
        raise ExportError(
            f"{path} has no tokenizer.",
            hint="Give the Trainer `processing_class=tokenizer` so that it saves one.",
        )
    _check_tokenizer(path / "tokenizer.json", config)


def _base(path: Path) -> Path | None:
    """Return the folder of the base model if `path` holds a PEFT adapter."""
    if not is_adapter(path):
        return None
    return base_folder(path, read_config(path))


def _adapted_files(base: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the weight files of base and adapter, relative to the adapter's folder."""
    base_config = _read_json(base / "config.json", required=True)
    _refuse_code("config.json of the base model", base_config)
    _check_kind(base_config)
    check_match(config, base_config)
    return (*(f"{base.name}/{name}" for name in _weight_files(base)), ADAPTER_WEIGHTS)


def _read_json(path: Path, *, required: bool) -> dict[str, Any]:
    if not path.is_file():
        if not required:
            return {}
        raise NotFoundError(
            f"{path.parent} has no {path.name}: it is not a transformers model.",
            hint="An artifact made by the Trainer has it at its root.",
        )
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise IntegrityError(f"{path.name} is larger than {_MAX_JSON_BYTES} bytes.")
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise IntegrityError(
            f"{path.name} is not a JSON object: {error}.", hint="Pull or log the version again."
        ) from error


def _refuse_code(name: str, document: Mapping[str, Any]) -> None:
    for key, value in _walk(document):
        named = key == "auto_map" or _INTERNAL_KEY.fullmatch(key)
        # A kernel named `owner/repository` would be fetched and executed.
        kernel = "_implementation" in key and isinstance(value, str) and "/" in value
        if named or kernel:
            raise UnsafeContentError(
                f"{name} has the key {key!r}, which makes transformers load code.",
                hint="Runport runs no code from an artifact; log a model of a stock architecture.",
            )


def _walk(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield str(key), inner
            yield from _walk(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(inner)


def _check_kind(config: Mapping[str, Any]) -> None:
    if config.get("quantization_config"):
        raise ExportError(
            "The weights are quantised, which the exporter cannot read.",
            hint="Log the model in float32, float16 or bfloat16.",
        )


def _check_labels(config: Mapping[str, Any]) -> None:
    """Raise if `id2label` is not 0..n-1 with distinct names, or contradicts `num_labels`."""
    names = config.get("id2label")
    if names is None:
        return
    if not isinstance(names, Mapping) or sorted(names) != sorted(map(str, range(len(names)))):
        raise ExportError(
            "id2label in config.json does not number its labels 0, 1, 2, …",
            hint="Set `id2label={0: ..., 1: ...}` on the model and log it again.",
        )
    if len(set(map(str, names.values()))) != len(names):
        raise ExportError(
            "id2label in config.json gives two labels the same name.",
            hint="Give every label a name of its own and log the model again.",
        )
    count = config.get("num_labels")
    if isinstance(count, int) and count != len(names):
        raise ExportError(
            f"config.json says {count} labels but id2label names {len(names)}.",
            hint="Set `id2label` to one name for each output of the model.",
        )


def _check_tokenizer(path: Path, config: Mapping[str, Any]) -> None:
    """Raise if `tokenizer.json` is there and has no model in it, or words that the model lacks."""
    document = _read_json(path, required=False)
    if not path.is_file():
        return
    model = document.get("model")
    if not isinstance(model, dict):
        raise IntegrityError(
            "tokenizer.json has no tokenizer model in it.", hint="Log the tokenizer again."
        )
    rows = config.get("vocab_size")
    largest = _largest_id(model.get("vocab"))
    if isinstance(rows, int) and largest >= rows:
        raise ExportError(
            f"The tokenizer numbers its words up to {largest}, but the model knows only {rows}.",
            hint="It belongs to another model: log the one that this model was trained with.",
        )


def _largest_id(vocabulary: object) -> int:
    if isinstance(vocabulary, Mapping):
        return max((one for one in vocabulary.values() if isinstance(one, int)), default=-1)
    return len(vocabulary) - 1 if isinstance(vocabulary, list) else -1


def _weight_files(path: Path) -> tuple[str, ...]:
    if (path / _WEIGHTS).is_file():
        return (_WEIGHTS,)
    if (path / _WEIGHTS_INDEX).is_file():
        return _sharded(path)
    pickles = sorted(file.name for file in path.iterdir() if file.suffix in _PICKLES)
    if any(name.startswith("pytorch_model") for name in pickles):
        raise UnsafeContentError(
            f"The weights are a pickle ({pickles[0]}), which can run code when it is read.",
            hint="Save with `safe_serialization=True` (the default since transformers 4.35).",
        )
    raise NotFoundError(
        f"{path} has no {_WEIGHTS}: it holds no weights.",
        hint="Version v0 of transformers >= 4.42 is only a stub; take alias final_model.",
    )


def _sharded(path: Path) -> tuple[str, ...]:
    index = _read_json(path / _WEIGHTS_INDEX, required=True).get("weight_map")
    names = sorted(set(index.values())) if isinstance(index, dict) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise IntegrityError(f"{_WEIGHTS_INDEX} names no weight files.")
    for name in names:
        if PurePosixPath(name).name != name or not name.endswith(".safetensors"):
            raise UnsafeContentError(f"{_WEIGHTS_INDEX} names a foreign file: {name!r}.")
        if not (path / name).is_file():
            raise IntegrityError(f"The weight file {name} is missing.", hint="Pull it again.")
    return tuple(names)
