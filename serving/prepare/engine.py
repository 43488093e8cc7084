"""Which engine serves a folder, and why; the decision and nothing of how engines run.

ONNX Runtime serves whatever has an export within tolerance. Without one, torch serves if it is
installed, and says why. With neither there is an error that names both ways out.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import registry

EXPORT_FILE = "export.json"
EXPORTER_MODULES = ("torch", "transformers", "onnxscript")
TORCH_MODULES = ("torch", "transformers")


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine for a version.

    Attributes:
        engine: `onnx` or `torch`.
        directory: what the worker loads.
        task: such as `text-classification`; empty lets the worker read it from the folder.
        reason: one sentence.
    """

    engine: str
    directory: Path
    task: str
    reason: str


def choose_engine(
    snapshot: Path, digest: str, *, wanted: str, exports_dir: Path, task: str | None = None
) -> Choice:
    """Choose the engine for the snapshot at `snapshot`; exports it when that is needed.

    Args:
        snapshot: folder with the model as it was logged, or an export.
        digest: of the snapshot, SHA-256.
        wanted: `auto`, `onnx` or `torch`.
        exports_dir: where exports are kept.
        task: what it shall answer; None takes what its architecture is for.

    Raises:
        RegistryError: no engine can serve it; the hint names the ways out.
    """
    if (snapshot / EXPORT_FILE).is_file():
        if wanted == "torch":
            raise registry.UnavailableError(
                f"{snapshot.name} is an ONNX export and has no weights for torch.",
                hint="Serve it with --engine onnx, or serve the version it was made from.",
            )
        return Choice("onnx", snapshot, "", "the folder is an export")
    if wanted == "torch":
        return _torch(snapshot, task, "asked for with --engine torch")
    refused = _why_not(EXPORTER_MODULES)
    try:
        return _onnx(snapshot, digest, exports_dir, task, may_export=not refused)
    except (registry.ExportError, registry.GateRefusedError) as error:
        if wanted == "onnx":
            raise
        return _torch(snapshot, task, f"no valid export: {error.message}")


def _onnx(
    snapshot: Path, digest: str, exports_dir: Path, task: str | None, *, may_export: bool
) -> Choice:
    # One version may have exports for several tasks.
    wanted = registry.read_source(snapshot, task).task.name
    found = registry.find_export(exports_dir, digest, wanted)
    reason = "a valid export was in the cache"
    if found is None:
        if not may_export:
            raise registry.ExportError(
                "There is no ONNX export of this version, and what makes one is not installed: "
                f"{_why_not(EXPORTER_MODULES)}.",
                hint="Install runport[export], or run `registry export` where it is installed.",
            )
        found = registry.export_model(snapshot, digest=digest, exports_dir=exports_dir, task=wanted)
        reason = "exported within tolerance of torch"
    return Choice("onnx", found.path, found.task, reason)


def _torch(snapshot: Path, task: str | None, reason: str) -> Choice:
    missing = _why_not(TORCH_MODULES)
    if missing:
        raise registry.ExportError(
            f"torch would have to serve this version ({reason}), but it is not installed: "
            f"{missing}.",
            hint="Install runport[export], or make an ONNX export with `registry export`.",
        )
    return Choice("torch", snapshot, task or "", reason)


def _why_not(modules: tuple[str, ...]) -> str:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    return f"no module {', '.join(missing)}" if missing else ""
