"""An adapter is pulled with its base model, or the error names the missing piece."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.adapter import BASE_FOLDER, AdapterPull, overlay
from registry.config import Settings
from registry.content import Selection
from registry.errors import NotFoundError, OfflineError, UsageError
from registry.pulled import PulledVersion
from registry.store import Store
from registry.store.prune import Budget
from tests.registry.file_server import file_server
from tests.registry.memory_hub import MemoryHub
from tests.registry.test_pull import MODEL, content, get, weights

BASE = {
    "config.json": b'{"model_type": "bert"}',
    "model.safetensors": weights(b"base" * 16),
    "tokenizer.json": b'{"model": {}}',
    "training_args.json": b"{}",
}


def adapter_files(base: str = "bert-base-uncased", **more: bytes) -> dict[str, bytes]:
    config = {"peft_type": "LORA", "base_model_name_or_path": base}
    return {
        "adapter_config.json": json.dumps(config).encode(),
        "adapter_model.safetensors": weights(b"lora" * 4),
        **more,
    }


@pytest.fixture
def hub() -> Iterator[MemoryHub]:
    with file_server() as server:
        hub = MemoryHub(server)
        hub.log("run-bert", BASE)
        yield hub


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(cache_dir=tmp_path / "cache", data_dir=tmp_path / "data", project="p")


def test_the_base_that_is_named_lies_beside_the_adapter(hub: MemoryHub, settings: Settings) -> None:
    own = hub.log("run-adapter", adapter_files())
    pulled = get("run-adapter:v0", settings, hub, base="run-bert:v0")
    held = content(pulled)
    assert {p.removeprefix("base/"): raw for p, raw in held.items() if p.startswith("base/")} == (
        BASE
    )
    assert {p for p in held if not p.startswith("base/")} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "config.json",
        "tokenizer.json",
    }
    assert pulled.version.qualified_name == own.qualified_name
    assert pulled.base is not None
    assert pulled.base.version.qualified_name == "me/p/run-bert:v0"
    assert pulled.path.name == pulled.digest


def test_the_digest_covers_both(hub: MemoryHub, settings: Settings) -> None:
    hub.log("run-bert", {**BASE, "model.safetensors": weights(b"else" * 16)})
    hub.log("run-adapter", adapter_files())
    hub.log("run-adapter", {**adapter_files(), "adapter_model.safetensors": weights(b"l" * 16)})
    digests = {
        get(f"run-adapter:{own}", settings, hub, base=f"run-bert:{base}").digest
        for own in ("v0", "v1")
        for base in ("v0", "v1")
    }
    assert len(digests) == 4


def test_the_base_is_found_by_what_is_recorded(hub: MemoryHub, settings: Settings) -> None:
    hub.log("by-metadata", adapter_files(), metadata={"base_artifact": "me/p/run-bert:v0"})
    hub.log("by-config", adapter_files("wandb-artifact:///me/p/run-bert:v0"))
    lineage = hub.log("by-lineage", adapter_files())
    data = hub.log("rows", {"a.json": b"[]"}, type="dataset")
    hub.used[lineage.short_name] = [hub.held[0], data]
    found = {get(f"{name}:v0", settings, hub).digest for name in ("by-metadata", "by-lineage")} | {
        get("by-lineage:v0", settings, hub).digest
    }
    assert len(found) == 1
    assert get("by-config:v0", settings, hub).base is not None
    # Pinned and cached, with a pinned base: nobody is asked, not even for lineage.
    before = hub.questions
    assert get("by-lineage:v0", replace(settings, offline=True), hub).digest in found
    again = get("by-lineage:v0", settings, hub)
    assert again.cached
    assert hub.questions == before


def test_a_base_that_is_not_known_is_the_missing_piece(hub: MemoryHub, settings: Settings) -> None:
    hub.log("run-adapter", adapter_files())
    with pytest.raises(NotFoundError, match="bert-base-uncased") as caught:
        get("run-adapter:v0", settings, hub)
    assert "--base" in caught.value.hint
    two = hub.log("run-two", adapter_files())
    hub.used[two.short_name] = [hub.held[0], hub.log("run-other", BASE)]
    with pytest.raises(NotFoundError, match="not recorded"):
        get("run-two:v0", settings, hub)
    hub.log("run-gone", adapter_files(), metadata={"base_artifact": "me/p/run-gone-base:v7"})
    with pytest.raises(NotFoundError, match="run-gone-base:v7"):
        get("run-gone:v0", settings, hub)
    with pytest.raises(OfflineError):
        get("run-adapter:v0", replace(settings, offline=True), hub, base="never-pulled:v0")


def test_no_artifact_makes_us_read_a_folder(
    hub: MemoryHub, settings: Settings, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    for name, raw in BASE.items():
        (secret / name).write_bytes(raw)
    hub.log("by-config", adapter_files(str(secret)))
    hub.log("by-metadata", adapter_files(), metadata={"base_artifact": str(secret)})
    for name in ("by-config", "by-metadata"):
        with pytest.raises(NotFoundError, match="base model"):
            get(f"{name}:v0", settings, hub)
        assert get(f"{name}:v0", settings, hub, base=str(secret)).base is not None


def test_a_local_adapter_may_name_a_local_base(
    hub: MemoryHub, settings: Settings, tmp_path: Path
) -> None:
    folders = {"base": BASE, "adapter": adapter_files(str(tmp_path / "base"))}
    for folder, files in folders.items():
        (tmp_path / folder).mkdir()
        for name, raw in files.items():
            (tmp_path / folder / name).write_bytes(raw)
    pulled = get(str(tmp_path / "adapter"), settings, hub)
    assert (pulled.path / BASE_FOLDER / "model.safetensors").read_bytes() == (
        BASE["model.safetensors"]
    )
    assert hub.questions == 0


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        (adapter_files(), "is an adapter itself"),
        ({"model.safetensors": weights()}, "has no config.json"),
        ({"config.json": b"{}"}, "has no weights"),
    ],
)
def test_a_base_that_is_no_whole_model_is_refused(
    hub: MemoryHub, settings: Settings, files: dict[str, bytes], missing: str
) -> None:
    hub.log("run-half", files)
    hub.log("run-adapter", adapter_files())
    with pytest.raises(NotFoundError, match=missing):
        get("run-adapter:v0", settings, hub, base="run-half:v0")


def test_a_base_for_what_is_no_adapter_is_a_mistake(hub: MemoryHub, settings: Settings) -> None:
    hub.log("run-whole", MODEL)
    with pytest.raises(UsageError, match="no adapter"):
        get("run-whole:v0", settings, hub, base="run-bert:v0")
    # A server's setting is for those deployments that are adapters.
    assert get("run-whole:v0", replace(settings, base="run-bert:v0"), hub).base is None


def test_what_is_loaded_was_hashed_also_where_both_lie_together(
    hub: MemoryHub, settings: Settings
) -> None:
    hub.log("run-adapter", adapter_files())
    first = get("run-adapter:v0", settings, hub, base="run-bert:v0")
    victim = first.path / BASE_FOLDER / "model.safetensors"
    times = victim.stat()
    wrong = bytearray(victim.read_bytes())
    wrong[-1] ^= 1
    # A file of its own, as where snapshots are copies: same size, same time, other bytes.
    os.chmod(victim.parent, 0o700)
    victim.unlink()
    victim.write_bytes(wrong)
    os.utime(victim, ns=(times.st_atime_ns, times.st_mtime_ns))
    again = get("run-adapter:v0", settings, hub, base="run-bert:v0", verify=True)
    assert again.digest == first.digest
    assert (again.path / BASE_FOLDER / "model.safetensors").read_bytes() == (
        BASE["model.safetensors"]
    )


def test_chosen_files_of_an_adapter_stay_alone(hub: MemoryHub, settings: Settings) -> None:
    hub.log("run-adapter", adapter_files())
    pulled = get("run-adapter:v0", settings, hub, selection=Selection(everything=True))
    assert pulled.base is None
    assert content(pulled) == adapter_files()


paths = st.dictionaries(
    st.sampled_from(
        ["config.json", "tokenizer.json", "vocab.txt", "model.safetensors", "base/config.json",
         "adapter_config.json", "README.md", "1_Pooling/config.json"]
    ),
    st.integers(0, 3).map(str),
)  # fmt: skip


@given(paths, paths)
def test_the_overlay_keeps_the_base_whole_and_the_adapters_own_files(
    adapter: dict[str, str], base: dict[str, str]
) -> None:
    both = overlay(adapter, base)
    assert {p[5:]: c for p, c in both.items() if p.startswith("base/")} == base
    own = {p: c for p, c in adapter.items() if not p.startswith("base/")}
    assert own.items() <= both.items()
    assert "model.safetensors" not in both or "model.safetensors" in adapter
    if "vocab.txt" in adapter and "tokenizer.json" not in adapter:
        assert "tokenizer.json" not in both, "two tokenizers are not mixed"


def test_a_prune_while_the_base_is_fetched_takes_neither(
    hub: MemoryHub, settings: Settings
) -> None:
    hub.log("run-adapter", adapter_files())
    store = Store(settings.cache_dir, "")
    adapter = get("run-adapter:v0", settings, hub, selection=Selection(include=("adapter_*",)))
    base = get("run-bert:v0", settings, hub)
    dropped: list[str] = []

    def fetch(_reference: str) -> PulledVersion:
        dropped.extend(entry.digest for entry in store.prune(Budget(max_bytes=0)).entries)
        return get("run-bert:v0", settings, hub)

    pulled = AdapterPull(store, fetch, lambda _: ()).complete(adapter, "run-bert:v0")
    assert dropped == [base.digest]
    assert (pulled.path / "adapter_model.safetensors").exists()
    assert (pulled.path / "base" / "model.safetensors").exists()
    assert store.claims.held() == set()
