"""Texts to calibrate and judge on: a file, or a data set that was logged to W&B."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import NotFoundError
from registry.export.derive import SAMPLES_FILE
from registry.pull import pull

if TYPE_CHECKING:
    from registry.config import Settings
    from registry.hub import Hub


def find_samples(text: str, *, settings: Settings, hub: Hub | None = None) -> Path:
    """Return a file of JSON lines, one `{"text": …}` or `{"text": …, "text_pair": …}` each.

    Args:
        text: a file; else the name of an artifact, which is pulled: of its files `samples.jsonl`,
            or the only one that ends in `.jsonl`.
        settings: cache and W&B server.
        hub: default: W&B through its SDK.

    Raises:
        NotFoundError: there is no such file or artifact, or it does not say which file.
        InvalidReferenceError: the text names neither.
    """
    path = Path(text).expanduser()
    if path.is_file():
        return path
    pulled = pull(text, settings=settings, hub=hub)
    named = pulled.path / SAMPLES_FILE
    if named.is_file():
        return named
    found = sorted(pulled.path.rglob("*.jsonl"))
    if len(found) != 1:
        raise NotFoundError(
            f"{pulled.version.qualified_name} has {len(found) or 'no'} files of JSON lines.",
            hint=f"Log one of them as {SAMPLES_FILE}.",
        )
    return found[0]
