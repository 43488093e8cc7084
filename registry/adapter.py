"""PEFT adapters: which base model one needs, and both together as one snapshot.

A pulled adapter's snapshot holds everything that loading needs:

    adapter_config.json, adapter_model.safetensors, …   the adapter, as logged
    config.json, tokenizer.json, …                      of the base, where the adapter has none
    base/                                               the base model, whole

Its digest covers all of that, so that whatever is made from it (an export) is
addressed by both. Files are shared with the two versions' own snapshots.

The base is, in this order: what the caller names; `base_artifact` of the
adapter's metadata; `base_model_name_or_path` of `adapter_config.json` when that
is a `wandb-artifact://` or `wandb://` name or a W&B address; the one model that
the run which logged the adapter used. An artifact never makes us read a folder
of this machine: that has to be named by the caller, unless the adapter itself
is a local folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from registry.cache import contents_of
from registry.errors import (
    IntegrityError,
    NotFoundError,
    RegistryError,
    StorageError,
    UnavailableError,
)
from registry.naming import is_model_type, is_stub
from registry.pulled import PulledVersion
from registry.reference import LocalRef, parse_reference
from registry.store import Store
from registry.store.claims import Lease
from registry.store.snapshots import build_snapshot
from registry.versions import ArtifactVersion

ADAPTER_CONFIG = "adapter_config.json"
BASE_FOLDER = "base"
BASE_METADATA = "base_artifact"
"""Metadata key under which an adapter's version names its base: `entity/project/name:vN`."""

_LOCAL = "local"
_SERVER_NAMES = ("wandb-artifact://", "wandb://", "https://", "http://")
_TOKENIZER_STARTS = (
    "tokenizer", "vocab", "merges", "special_tokens_map", "added_tokens", "spiece",
    "sentencepiece", "chat_template",
)  # fmt: skip
_CONFIGS = ("config.json", "generation_config.json")

Fetch = Callable[[str], PulledVersion]
"""Pulls a reference as it is, without a base of its own."""

Inputs = Callable[[ArtifactVersion], Sequence[ArtifactVersion]]
"""Lists the versions that the run which logged a version used; empty when nobody can be asked."""


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds a PEFT adapter."""
    return (folder / ADAPTER_CONFIG).is_file()


def has_base(folder: Path) -> bool:
    """Whether the adapter's folder holds its base model too."""
    return (folder / BASE_FOLDER).is_dir()


@dataclass(frozen=True, slots=True)
class AdapterPull:
    """What completing an adapter needs.

    Args:
        store: holds the files of adapter and base.
        fetch: pulls the base.
        inputs: asks for lineage.
        verify: hash the files of a cached snapshot again.
    """

    store: Store
    fetch: Fetch
    inputs: Inputs
    verify: bool = False

    def complete(self, adapter: PulledVersion, base: str | None) -> PulledVersion:
        """Return the adapter together with its base model.

        Args:
            adapter: as it was logged.
            base: the base model's reference; None to find out.

        Raises:
            NotFoundError: the base is not known, or is no whole model.
            RegistryError: as for a pull, about the base.
        """
        # Fetching the base may take long: a prune meanwhile leaves the adapter alone.
        with self._kept(adapter):
            return self._complete(adapter, base)

    def _complete(self, adapter: PulledVersion, base: str | None) -> PulledVersion:
        config = _config(adapter)
        reference = base or self._reference(adapter, config)
        try:
            model = self.fetch(reference)
        except RegistryError as error:
            name = adapter.version.short_name
            raise type(error)(
                f"The base model of the adapter {name}, {reference}: {error.message}",
                hint=error.hint or _name_it(adapter),
            ) from error
        with self._kept(model):
            return self._join(adapter, model)

    def _kept(self, pulled: PulledVersion) -> Lease:
        lease = self.store.claims.hold(pulled.digest)
        if lease is None:
            raise UnavailableError(
                f"{pulled.version.qualified_name} was pruned while it was used.",
                hint="Pull it again, and allow the cache more room.",
            )
        return lease

    def _join(self, adapter: PulledVersion, model: PulledVersion) -> PulledVersion:
        _check_whole(adapter, model)
        files = overlay(contents_of(self.store, adapter), contents_of(self.store, model))
        digest, path = self._snapshot(adapter, model, files)
        self.store.marks.touch(digest)
        return replace(
            adapter,
            path=path,
            digest=digest,
            base=model,
            cached=adapter.cached and model.cached,
            fetched_bytes=adapter.fetched_bytes + model.fetched_bytes,
        )

    def _reference(self, adapter: PulledVersion, config: Mapping[str, Any]) -> str:
        recorded = adapter.version.metadata.get(BASE_METADATA)
        if isinstance(recorded, str) and recorded:
            return _on_the_server(recorded, adapter)
        named = str(config.get("base_model_name_or_path") or "")
        if named.startswith(_SERVER_NAMES):
            return named
        if adapter.version.version == _LOCAL:
            if Path(named).expanduser().is_dir():
                return str(Path(named).expanduser().absolute())
        elif used := self._used(adapter.version):
            return used
        of = f" of {named!r}" if named else ""
        raise NotFoundError(
            f"{adapter.version.short_name} is a PEFT adapter{of}, and which artifact holds that "
            "base model is not recorded.",
            hint=_name_it(adapter),
        )

    def _used(self, version: ArtifactVersion) -> str | None:
        """Return the only model that the run which logged the adapter used."""
        key = f"{version.short_name} base"  # No collection's name holds a colon.
        known = self.store.records.meaning(version.entity, version.project, key)
        if known != key:
            return known
        used = {
            v.qualified_name
            for v in self.inputs(version)
            if is_model_type(v.type) and not is_stub(v) and v != version
        }
        if len(used) != 1:
            return None
        (name,) = used
        with suppress(StorageError):
            self.store.records.remember_meaning(version.entity, version.project, key, name)
        return name

    def _snapshot(
        self, adapter: PulledVersion, base: PulledVersion, files: Mapping[str, str]
    ) -> tuple[str, Path]:
        version, selection = adapter.version, f"with-{base.digest}"
        if version.version == _LOCAL:
            with self.store.claims.pulling(_sizes_bytes(adapter, base)):
                return build_snapshot(self.store.layout, files)
        found = self.store.find(
            version.entity, version.project, version.collection, version.version, selection,
            rehash=self.verify,
        )  # fmt: skip
        if found is None:
            with self.store.claims.pulling(_sizes_bytes(adapter, base)):
                found = self.store.commit(version, selection, files, adapter.skipped)
        return found.record.snapshot, found.path


def overlay(adapter: Mapping[str, str], base: Mapping[str, str]) -> dict[str, str]:
    """Return the files of the snapshot that holds both; pure.

    Args:
        adapter, base: path -> anything that identifies the bytes.
    """
    has_tokenizer = any(_is_tokenizer(path) for path in adapter)
    shared = {
        path: content
        for path, content in base.items()
        if path in _CONFIGS or (_is_tokenizer(path) and not has_tokenizer)
    }
    # An adapter of that name would hide the base; what is merged lies at the root.
    own = {p: c for p, c in adapter.items() if not p.startswith(f"{BASE_FOLDER}/")}
    return {**{f"{BASE_FOLDER}/{path}": content for path, content in base.items()}, **shared, **own}


def _is_tokenizer(path: str) -> bool:
    return "/" not in path and path.startswith(_TOKENIZER_STARTS)


def _config(adapter: PulledVersion) -> dict[str, Any]:
    try:
        document = json.loads((adapter.path / ADAPTER_CONFIG).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise IntegrityError(
            f"{ADAPTER_CONFIG} in {adapter.version.short_name} cannot be read: {error}.",
            hint="Log the adapter again.",
        ) from error
    return document if isinstance(document, dict) else {}


def _on_the_server(recorded: str, adapter: PulledVersion) -> str:
    if isinstance(parse_reference(recorded), LocalRef):
        raise NotFoundError(
            f"{adapter.version.short_name} records a folder as its base model: {recorded!r}.",
            hint=_name_it(adapter),
        )
    return recorded


def _check_whole(adapter: PulledVersion, base: PulledVersion) -> None:
    name, own = base.version.short_name, adapter.version.short_name
    if is_adapter(base.path):
        missing = "is an adapter itself"
    elif not (base.path / "config.json").is_file():
        missing = "has no config.json"
    elif not any(base.path.glob("*.safetensors")):
        missing = "has no weights (*.safetensors)"
    else:
        return
    raise NotFoundError(f"{name}, the base model of {own}, {missing}.", hint=_name_it(adapter))


def _sizes_bytes(*pulled: PulledVersion) -> list[int]:
    return [file.size_bytes for one in pulled for file in one.version.files]


def _name_it(adapter: PulledVersion) -> str:
    version = adapter.version
    shown = f"./{version.collection}" if version.version == _LOCAL else version.short_name
    return (
        f"Name the whole model that it was trained on, an artifact or a folder: {shown} "
        "--base run-bert:v0"
    )
