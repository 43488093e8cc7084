"""Small model files whose bytes are valid, and pulls of them."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from registry.config import Settings
from registry.pull import pull
from registry.pulled import PulledVersion
from registry.retry import Limits
from tests.registry.memory_hub import MemoryHub

QUICK = Limits(attempts=2, read_timeout_s=5, first_wait_s=0.001, longest_wait_s=0.01)


def weights(payload: bytes) -> bytes:
    header = json.dumps(
        {"a": {"dtype": "U8", "shape": [len(payload)], "data_offsets": [0, len(payload)]}}
    ).encode()
    return struct.pack("<Q", len(header)) + header + payload


def model(seed: int, size_bytes: int = 1000) -> dict[str, bytes]:
    """A model whose configuration is the same for all seeds, and whose weights are not."""
    return {
        "config.json": b'{"model_type": "bert"}',
        "model.safetensors": weights(bytes([seed % 251]) * (size_bytes + seed)),
    }


def settings_of(root: Path) -> Settings:
    return Settings(cache_dir=root / "cache", data_dir=root / "data", project="p", entity="me")


def get(name: str, settings: Settings, hub: MemoryHub, **options: object) -> PulledVersion:
    return pull(name, settings=settings, hub=hub, limits=QUICK, **options)  # type: ignore[arg-type]
