"""Loading a checked model directory with transformers: no network, no code, no pickle."""

from __future__ import annotations

import inspect
from typing import Any

from registry.errors import ExportError, IntegrityError, UnavailableError
from registry.export.adapter import adapted_names, merge
from registry.export.source import ModelSource


def load_torch_model(source: ModelSource, *, threads: int) -> tuple[Any, Any]:
    """Load the model (eval mode, float32, CPU) and its tokenizer; an adapter is merged.

    Args:
        source: a directory that passed `read_source`.
        threads: cores that torch may use; a setting of the whole process.

    Returns:
        The transformers model and its tokenizer; None for what reads no text.

    Raises:
        UnavailableError: torch or transformers is not installed.
        ExportError: the architecture is unknown, the head is missing, the labels do not fit the
            weights, or the tokenizer cannot be loaded.
        IntegrityError: a weight is NaN or infinite.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        raise UnavailableError(
            f"{error.name} is not installed.", hint="Install runport[export]."
        ) from error
    torch.set_num_threads(threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    heard = source.task.form in ("audio", "image")
    tokenizer = None if heard else _load_tokenizer(transformers, source)
    model, loading = _load_weights(torch, transformers, source)
    _check_loading(source, loading)
    if source.base is not None:
        model = merge(model, source.path)
    model.eval().requires_grad_(False)
    _check_finite(torch, model)
    return model, tokenizer


def model_inputs(source: ModelSource, model: Any, tokenizer: Any) -> tuple[str, ...]:
    """Return the task's inputs that the tokenizer, if any, makes and the model's forward takes."""
    accepted = inspect.signature(model.forward).parameters
    return tuple(
        name
        for name in source.task.inputs
        if name in accepted and (tokenizer is None or name in tokenizer.model_input_names)
    )


def _load_tokenizer(transformers: Any, source: ModelSource) -> Any:
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            source.path, local_files_only=True, trust_remote_code=False
        )
        tokenizer("one text", "and another", truncation=True, max_length=source.max_tokens)
    # Broken files make every kind of exception, also panics that are no Exception.
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise ExportError(
            f"The tokenizer cannot be loaded: {_first_line(error)}",
            hint="Log the tokenizer that the model was trained with again.",
        ) from error
    if not tokenizer.is_fast:
        raise ExportError(
            f"{type(tokenizer).__name__} is not a fast tokenizer, so there is no tokenizer.json.",
            hint="Log the model with a fast tokenizer.",
        )
    return tokenizer


def _load_weights(torch: Any, transformers: Any, source: ModelSource) -> tuple[Any, dict[str, Any]]:
    auto_class = getattr(transformers, source.task.auto_class)
    try:
        # Of an adapter, the configuration at its root has the labels that it was trained on.
        config = transformers.AutoConfig.from_pretrained(
            source.path, local_files_only=True, trust_remote_code=False
        )
        loaded: tuple[Any, dict[str, Any]] = auto_class.from_pretrained(
            source.base or source.path,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            # A mismatch is judged below, in our own words.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    # transformers raises ValueError, KeyError, OSError, RuntimeError and more.
    except Exception as error:
        raise ExportError(
            f"transformers {transformers.__version__} cannot load the model: {_first_line(error)}",
            hint="Is the architecture a stock one of this transformers version?",
        ) from error
    return loaded


def _check_loading(source: ModelSource, loading: dict[str, Any]) -> None:
    # What the adapter brings itself need not be in its base.
    brought = adapted_names(source.path) if source.base is not None else frozenset()
    spare = source.task.spare_weights
    # Mismatches are (name, shape, shape), in older releases names.
    shapes = (key if isinstance(key, str) else key[0] for key in loading["mismatched_keys"])
    mismatched = sorted(set(map(str, shapes)) - brought)
    if mismatched:
        raise ExportError(
            f"config.json and the weights disagree about the shape of {mismatched[0]}.",
            hint="Most often id2label has another number of labels than the trained head.",
        )
    missing = sorted(
        name
        for name in set(map(str, loading["missing_keys"])) - brought
        if not name.startswith(spare)
    )
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ExportError(
            f"The weights lack {missing[0]}{more}: they are not a whole {source.task.name} model.",
            hint="Log the model after training its head, or name the right --task.",
        )


def _check_finite(torch: Any, model: Any) -> None:
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise IntegrityError(
                f"The weights hold NaN or infinity (in {name}).",
                hint="Training diverged, or the file is damaged; take another version.",
            )


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:300] if text else 'no message'}"
