"""Which pickle becomes which safetensors file, by name alone; pure."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from registry.errors import IntegrityError, UnsafeContentError

_STANDARD = re.compile(r"(pytorch_model|adapter_model)((?:-\d{5}-of-\d{5})?)\.bin\Z")
_STEMS = {"pytorch_model": "model", "adapter_model": "adapter_model"}
_INDEX_LIMIT_BYTES = 64 * 1024 * 1024
_CONFIG = "config.json"


@dataclass(frozen=True, slots=True)
class Target:
    """What one pickle becomes.

    Attributes:
        path: the pickle.
        target: the safetensors file.
        checkpoint: whether its name is that of a trainer's checkpoint, not of plain weights.
        config: path of the `config.json` beside it; empty where there is none.
    """

    path: str
    target: str
    checkpoint: bool
    config: str


def choose_targets(name: str, pickles: Sequence[str], files: Collection[str]) -> list[Target]:
    """Return what each pickle becomes, under the names that transformers and peft look for.

    Args:
        name: the version's name, for messages.
        pickles: paths of the pickles.
        files: paths of all files of the version.

    Raises:
        UnsafeContentError: two would become the same file, or one that is there already.
    """
    targets = [_target(path, pickles, files) for path in pickles]
    taken = [target.target for target in targets]
    for target in targets:
        if taken.count(target.target) > 1 or target.target in files:
            raise UnsafeContentError(
                f"{target.path!r} of {name} and another file would both become {target.target!r}.",
                hint=f"Leave one of them out: --exclude {target.path!r}.",
            )
    return targets


def _target(path: str, pickles: Sequence[str], files: Collection[str]) -> Target:
    folder, _, base = path.rpartition("/")
    beside = f"{folder}/" if folder else ""
    config = f"{beside}{_CONFIG}" if f"{beside}{_CONFIG}" in files else ""
    standard = _STANDARD.match(base)
    if standard:
        return Target(
            path, f"{beside}{_STEMS[standard[1]]}{standard[2]}.safetensors", False, config
        )
    alone = [p for p in pickles if p.rpartition("/")[0] == folder] == [path]
    stem = "model" if config and alone else PurePosixPath(base).stem
    return Target(path, f"{beside}{stem}.safetensors", True, config)


def is_index(path: str) -> bool:
    """Whether the file says which pickle holds which tensor."""
    base = path.rpartition("/")[2]
    return any(base == f"{stem}.bin.index.json" for stem in _STEMS)


def index_target(path: str) -> str:
    """Return the path of the index that stands for this one after the conversion."""
    folder, slash, base = path.rpartition("/")
    return f"{folder}{slash}{_STEMS[base.partition('.')[0]]}.safetensors.index.json"


def rewrite_index(
    path: str, raw: bytes, converted: Mapping[str, tuple[str, Collection[str]]]
) -> bytes:
    """Return the index for the converted files.

    Args:
        path: of the index, for messages.
        raw: its bytes.
        converted: path of the pickle -> (what it became, names of its tensors).

    Raises:
        IntegrityError: it is no index, or names tensors or files that are not there.
    """
    folder = path.rpartition("/")[0]
    weight_map = _weight_map(path, raw)
    moved = {}
    for tensor, file in weight_map.items():
        target, names = converted.get(f"{folder}/{file}" if folder else str(file), ("", ()))
        if tensor not in names:
            raise IntegrityError(
                f"{path!r} says that {tensor!r} is in {file!r}, and it is not.",
                hint="Log the model again.",
            )
        moved[tensor] = target.rpartition("/")[2]
    return json.dumps({"metadata": {}, "weight_map": moved}, indent=2, sort_keys=True).encode()


def _weight_map(path: str, raw: bytes) -> dict[str, Any]:
    try:
        document = json.loads(raw) if len(raw) <= _INDEX_LIMIT_BYTES else None
    except (ValueError, RecursionError):
        document = None
    weight_map = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(weight_map, dict):
        raise IntegrityError(f"{path!r} is no index of weights.", hint="Log the model again.")
    return weight_map
