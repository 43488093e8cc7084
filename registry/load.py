"""Load a pulled model for more training or inference, recording who used it.

The files are hashed again before anything reads them: what is loaded is what
was verified. Nothing is fetched by the loader, and no code of the artifact runs.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from registry.config import Settings
from registry.errors import RegistryError, UnavailableError, UsageError
from registry.export.adapter import base_folder, read_config
from registry.hub import WandbHub
from registry.pull import pull

if TYPE_CHECKING:
    from registry.hub import Hub
    from registry.pulled import PulledVersion
    from registry.transfer import Progress

_log = logging.getLogger(__name__)


def load(
    reference: str,
    loader: Any,
    *,
    settings: Settings | None = None,
    progress: Progress | None = None,
    base: str | None = None,
    hub: Hub | None = None,
    **options: Any,
) -> Any:
    """Pull a version and load it: `load("run-bert:v0", AutoModelForSequenceClassification)`.

    Args:
        reference: as for `pull`.
        loader: a class with `from_pretrained` (transformers, tokenizers, processors), or
            anything that takes the folder's path, such as `SentenceTransformer`.
        settings: default: from the environment.
        progress: hears of bytes.
        base: of a PEFT adapter: its base model, as for `pull`.
        hub: default: W&B through its SDK.
        options: passed on to the loader.

    Returns:
        What the loader returns. Of an adapter, a loader of models (`AutoModelFor…`, or peft's
        `AutoPeftModelFor…`) gives a `PeftModel` around its base; `merge_and_unload()` merges it.

    Raises:
        RegistryError: as for `pull`. What the loader itself raises passes through.
    """
    settings = settings or Settings.from_environment()
    pulled = pull(reference, settings=settings, progress=progress, verify=True, base=base, hub=hub)
    from_pretrained = getattr(loader, "from_pretrained", None)
    if pulled.base is not None and from_pretrained is not None and _loads_models(loader):
        loaded = _load_adapter(pulled, loader, options)
    elif from_pretrained is None:
        loaded = loader(str(pulled.path), **options)
    else:
        loaded = from_pretrained(str(pulled.path), **_safe_options(loader), **options)
    if pulled.version.version != "local":
        _record_use(hub or WandbHub(settings), pulled.version)
    return loaded


def _load_adapter(pulled: PulledVersion, loader: Any, options: dict[str, Any]) -> Any:
    """Load the base with the adapter's labels, and put the adapter on it."""
    try:
        from peft import PeftModel
    except ImportError as error:
        raise UnavailableError(
            "An adapter needs peft, which is not installed.", hint="Install runport[export]."
        ) from error
    from transformers import AutoConfig

    # The loaders of peft would follow the path that the adapter was trained with.
    loader = getattr(loader, "_target_class", None) or loader
    trainable = bool(options.pop("is_trainable", False))
    if loader is PeftModel:
        raise UsageError(
            "PeftModel does not say which base model to load.",
            hint="Load it with AutoPeftModelForSequenceClassification or the like.",
        )
    folder = base_folder(pulled.path, read_config(pulled.path))
    config = AutoConfig.from_pretrained(
        str(pulled.path), local_files_only=True, trust_remote_code=False
    )
    # A head of another size than the base's own comes from the adapter.
    chosen = {"config": config, "ignore_mismatched_sizes": True, **options}
    model = loader.from_pretrained(str(folder), **_safe_options(loader), **chosen)
    return PeftModel.from_pretrained(model, str(pulled.path), is_trainable=trainable)


def _loads_models(loader: Any) -> bool:
    return any(
        hasattr(loader, name) for name in ("_model_mapping", "base_model_prefix", "_target_class")
    ) or str(getattr(loader, "__module__", "")).startswith("peft.")


def _safe_options(loader: Any) -> dict[str, Any]:
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    # Auto classes of models have a mapping, models a prefix; tokenizers and
    # configurations would keep an option that they do not know.
    if _loads_models(loader):
        options["use_safetensors"] = True
    return options


def _record_use(hub: Hub, version: Any) -> None:
    try:
        hub.use_in_active_run(version)
    except RegistryError as error:
        # An offline run cannot record lineage; the model is loaded all the same.
        _log.warning("the use of %s was not recorded: %s", version.qualified_name, error)
