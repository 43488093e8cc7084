"""The tensors in what PyTorch read, under the names that transformers gives them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from registry.errors import IntegrityError, UnsafeContentError

_WRAPPED = ("state_dict", "model_state_dict", "model")
_SHARED_FACTOR = 4
_SHARED_FLOOR_BYTES = 64 * 2**20
_SHOWN = 3


def find_tensors(loaded: object, shown: str, *, checkpoint: bool) -> tuple[dict[str, Any], str]:
    """Return name -> tensor, and the prefix that was taken off every name.

    Args:
        loaded: what PyTorch read.
        shown: the file's name, for messages.
        checkpoint: whether the tensors may lie beneath `state_dict`, and their names behind the
            attribute of the LightningModule that holds the model.

    Raises:
        UnsafeContentError: there are no named tensors in it.
    """
    if checkpoint and isinstance(loaded, Mapping):
        for key in _WRAPPED:
            inner = loaded.get(key)
            if isinstance(inner, Mapping) and inner:
                return _without_prefix(_named(inner, shown))
    return _named(loaded, shown), ""


def _named(loaded: object, shown: str) -> dict[str, Any]:
    import torch

    if not isinstance(loaded, Mapping) or not loaded:
        raise _no_weights(shown, f"a {type(loaded).__name__}")
    for name, value in loaded.items():
        plain = type(value) in (torch.Tensor, torch.nn.Parameter)
        if not isinstance(name, str) or not plain or value.layout != torch.strided:
            raise _no_weights(shown, f"{str(name)[:80]!r}, a {type(value).__name__}")
        if value.device.type != "cpu":
            raise _no_weights(shown, f"{name[:80]!r}, which has no values")
    return {name: value.detach() for name, value in loaded.items()}


def _no_weights(shown: str, what: str) -> UnsafeContentError:
    return UnsafeContentError(
        f"{shown} holds no plain weights (tensors by name) but {what}.",
        hint="Log what `model.save_pretrained(…)` or the Trainer saves.",
    )


def _without_prefix(tensors: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Take off what `torch.compile`, DDP and the attribute of a LightningModule put in front."""
    prefix = ""
    for wrapper in ("_orig_mod.", "module.", None, "_orig_mod.", "module."):
        firsts = {name.partition(".")[0] + "." for name in tensors}
        first = next(iter(firsts))
        inside = len(firsts) == 1 and all(len(name) > len(first) for name in tensors)
        # A lone layer (`weight`, `bias`) needs its name: nothing else says what it is.
        layers = any("." in name[len(first) :] for name in tensors)
        if inside and layers and wrapper in (None, first):
            prefix += first
            tensors = {name[len(first) :]: tensor for name, tensor in tensors.items()}
    return tensors, prefix


def check_size(tensors: Mapping[str, Any], file_bytes: int, shown: str) -> None:
    """Refuse tensors that are far larger than the file: views of a few bytes, repeated.

    Raises:
        UnsafeContentError: they would take more than tied weights explain.
    """
    claimed_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if claimed_bytes > _SHARED_FACTOR * file_bytes + _SHARED_FLOOR_BYTES:
        raise UnsafeContentError(
            f"The tensors of {shown} would take {claimed_bytes} bytes; it has {file_bytes}.",
            hint="Save the model again with safetensors.",
        )


def check_architecture(names: set[str], config_dir: Path, shown: str) -> None:
    """Check that a checkpoint has all the weights of the architecture that `config.json` names.

    Raises:
        UnsafeContentError: it has not, or the architecture is unknown: what would load it would
            make up the rest.
        IntegrityError: the configuration cannot be read.
    """
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    try:
        config = transformers.AutoConfig.from_pretrained(
            str(config_dir), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        raise IntegrityError(
            f"The config.json beside {shown} cannot be read: {error}", hint="Log it again."
        ) from error
    architecture = (config.architectures or [""])[0]
    kind = getattr(transformers, architecture, None) if architecture else None
    if not isinstance(kind, type) or not issubclass(kind, transformers.PreTrainedModel):
        raise UnsafeContentError(
            f"The config.json beside {shown} names no architecture of transformers.",
            hint="Log what `model.save_pretrained(…)` saves.",
        )
    with torch.device("meta"):
        model = kind(config)
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    missing = sorted(set(model.state_dict()) - names - tied)
    if missing:
        some = ", ".join(missing[:_SHOWN]) + (", …" if len(missing) > _SHOWN else "")
        raise UnsafeContentError(
            f"{shown} is no {architecture}: it lacks {len(missing)} of its weights ({some}).",
            hint="Log what `model.save_pretrained(…)` saves.",
        )
