"""Load a pulled model for more training or inference, recording who used it.

The files are hashed again before anything reads them: what is loaded is what
was verified. Nothing is fetched by the loader, and no code of the artifact runs.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from registry.config import Settings
from registry.errors import RegistryError
from registry.hub import WandbHub
from registry.pull import pull

if TYPE_CHECKING:
    from registry.hub import Hub
    from registry.transfer import Progress

_log = logging.getLogger(__name__)


def load(
    reference: str,
    loader: Any,
    *,
    settings: Settings | None = None,
    progress: Progress | None = None,
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
        hub: default: W&B through its SDK.
        options: passed on to the loader.

    Returns:
        What the loader returns.

    Raises:
        RegistryError: as for `pull`. What the loader itself raises passes through.
    """
    settings = settings or Settings.from_environment()
    pulled = pull(reference, settings=settings, progress=progress, verify=True, hub=hub)
    from_pretrained = getattr(loader, "from_pretrained", None)
    if from_pretrained is None:
        loaded = loader(str(pulled.path), **options)
    else:
        loaded = from_pretrained(str(pulled.path), **_safe_options(loader), **options)
    if pulled.version.version != "local":
        _record_use(hub or WandbHub(settings), pulled.version)
    return loaded


def _safe_options(loader: Any) -> dict[str, Any]:
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    # Auto classes of models have a mapping, models a prefix; tokenizers and
    # configurations would keep an option that they do not know.
    if hasattr(loader, "_model_mapping") or hasattr(loader, "base_model_prefix"):
        options["use_safetensors"] = True
    return options


def _record_use(hub: Hub, version: Any) -> None:
    try:
        hub.use_in_active_run(version)
    except RegistryError as error:
        # An offline run cannot record lineage; the model is loaded all the same.
        _log.warning("the use of %s was not recorded: %s", version.qualified_name, error)
