"""The complete directory of a trained model, as `trainer.save_model` leaves it, without pickles.

Two sources: the model in memory (when training ends) and a checkpoint on disk. Pure of W&B.
"""

from __future__ import annotations

import copy
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from registry.callback.arguments import write_arguments
from registry.errors import ExportError, NotFoundError, StorageError

_TRAINING_STATE = re.compile(
    r"^(optimizer|scheduler|scaler|rng_state.*|random_states.*)\.(pt|pth|bin|pkl|safetensors)$"
    r"|^trainer_state\.json$"
)
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


def write_model(
    model: Any, directory: Path, *, args: Any, processor: Any = None, collator: Any = None
) -> Path:
    """Write everything that serving or further training needs into `directory`.

    Weights are safetensors (adapters stay adapters, sentence-transformers keep their modules);
    beside them go the config, the generation config, the processor and `training_args.json`.

    Args:
        model: the trained model, perhaps wrapped for parallel training or compiled.
        directory: made when missing.
        args: the `TrainingArguments`.
        processor: tokenizer, feature extractor, image processor or processor.
        collator: the data collator; its tokenizer is saved when there is no `processor`.

    Raises:
        ExportError: the model left no safetensors weights.
        StorageError: the disk is full or not writable.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _write_weights(_unwrapped(model), directory)
        write_adapted_config(model, directory)
        saved_processor = processor if processor is not None else _collator_tokenizer(collator)
        if saved_processor is not None:
            saved_processor.save_pretrained(directory)
        write_arguments(args, directory)
    except OSError as error:
        raise _storage_error(directory, error) from error
    _require_weights(directory)
    return directory


def write_adapted_config(model: Any, directory: Path) -> None:
    """Write the base model's `config.json` beside a PEFT adapter; nothing for another model.

    PEFT leaves it out, and with it the labels and the head that the adapter was trained for.
    """
    unwrapped = _unwrapped(model)
    described: Any = copy.deepcopy(getattr(unwrapped, "config", None))
    if not getattr(unwrapped, "peft_config", None) or not hasattr(described, "to_json_file"):
        return
    described.architectures = [type(unwrapped.get_base_model()).__name__]
    described.to_json_file(directory / "config.json")


def find_checkpoint(output_dir: Path, step: int) -> Path:
    """Return the directory of the checkpoint that was just saved at `step`.

    A trial of a hyper-parameter search has checkpoints of its own, in `run-<trial>/`: the newest
    is meant. When there is none, the path where it should be is returned.
    """
    plain = output_dir / f"checkpoint-{step}"
    found = [p for p in (plain, *output_dir.glob(f"run-*/{plain.name}")) if p.is_dir()]
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=plain)


def link_checkpoint(checkpoint: Path, directory: Path, *, args: Any, model: Any = None) -> Path:
    """Bring what serving needs of a saved checkpoint into `directory`.

    Files are hard links where the disk allows it, so that the Trainer may rotate the checkpoint
    away while it is being uploaded. The optimizer, scheduler and random states, and pickles, are
    left out; the arguments are written as JSON, and the configuration of an adapter's base.

    Raises:
        NotFoundError: there is no such checkpoint.
        ExportError: it holds no safetensors weights.
        StorageError: the disk is full or not writable.
    """
    _link_files(checkpoint, directory, (p for p in _files(checkpoint) if is_for_serving(p)))
    try:
        write_arguments(args, directory)
        if model is not None:
            write_adapted_config(model, directory)
    except OSError as error:
        raise _storage_error(directory, error) from error
    _require_weights(directory)
    return directory


def link_training_state(checkpoint: Path, directory: Path) -> Path:
    """Bring what only resuming needs of a saved checkpoint into `directory`.

    Raises:
        NotFoundError: there is no such checkpoint, or it holds no such state.
        StorageError: the disk is full or not writable.
    """
    state = [path for path in _files(checkpoint) if is_training_state(path)]
    if not state:
        raise NotFoundError(
            f"{checkpoint} holds no optimizer, scheduler or random state.",
            hint="The Trainer saves none with save_only_model=True.",
        )
    return _link_files(checkpoint, directory, state)


def is_training_state(path: Path) -> bool:
    """Whether a checkpoint's file only serves resuming."""
    return _TRAINING_STATE.match(path.name) is not None


def is_for_serving(path: Path) -> bool:
    """Whether a checkpoint's file belongs in the logged model."""
    return not is_training_state(path) and path.suffix not in _PICKLES


def _write_weights(model: Any, directory: Path) -> None:
    if callable(getattr(model, "save_pretrained", None)):
        model.save_pretrained(directory)
        return
    import safetensors.torch

    path = str(directory / "model.safetensors")
    safetensors.torch.save_model(model, path, metadata={"format": "pt"})


def _unwrapped(model: Any) -> Any:
    from accelerate.utils import extract_model_from_parallel

    return extract_model_from_parallel(model, keep_torch_compile=False)


def _collator_tokenizer(collator: Any) -> Any:
    # The Trainer wraps the collator when it also removes unused columns.
    inner = getattr(collator, "data_collator", collator)
    return getattr(inner, "tokenizer", None)


def _files(checkpoint: Path) -> list[Path]:
    if not checkpoint.is_dir():
        raise NotFoundError(
            f"There is no checkpoint at {checkpoint}.",
            hint="It was removed or moved after the Trainer saved it; raise save_total_limit.",
        )
    return sorted(path for path in checkpoint.rglob("*") if path.is_file())


def _link_files(checkpoint: Path, directory: Path, files: Iterable[Path]) -> Path:
    try:
        for source in files:
            target = directory / source.relative_to(checkpoint)
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(source, target)
    except OSError as error:
        raise _storage_error(directory, error) from error
    return directory


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        # Another file system, or one without hard links; a full disk fails again, loudly.
        shutil.copyfile(source, target)


def _require_weights(directory: Path) -> None:
    if not any(path.stat().st_size for path in directory.rglob("*.safetensors")):
        raise ExportError(
            f"The model saved in {directory} has no safetensors weights.",
            hint="Runport serves safetensors only; save the model with safe serialization.",
        )


def _storage_error(directory: Path, error: OSError) -> StorageError:
    return StorageError(
        f"The model could not be written to {directory}: {error}.",
        hint="Free space or choose another output_dir; the Trainer's checkpoints are untouched.",
    )
