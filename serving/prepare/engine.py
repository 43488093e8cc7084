"""Which engine serves a folder, and why; the decision and nothing of how engines run.

ONNX Runtime serves whatever has an export within tolerance. Without one, torch serves if it is
installed, and says why. With neither there is an error that names both ways out. Other engines and
precisions serve only when they are asked for by name, and then nothing else does, or when `registry
tune` chose them on this machine and nobody says otherwise.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path

import registry

EXPORT_FILE = "export.json"
EXPORTER_MODULES = ("torch", "transformers", "onnxscript")
TORCH_MODULES = ("torch", "transformers")
AUTO = "auto"
CHECKED = ".checked"
_FIRST = ("onnx", "fp32")


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine for a version.

    Attributes:
        engine: `onnx`, `openvino` or `torch`.
        directory: what the worker loads.
        task: such as `text-classification`; empty lets the worker read it from the folder.
        reason: one sentence.
        precision: such as `fp32`.
        layout: how its worker shall use the cores; None leaves it to the server.
    """

    engine: str
    directory: Path
    task: str
    reason: str
    precision: str = "fp32"
    layout: registry.TuningLayout | None = None


def choose_engine(
    snapshot: Path,
    digest: str,
    *,
    wanted: str,
    exports_dir: Path,
    task: str | None = None,
    precision: str = AUTO,
    cache_dir: Path | None = None,
) -> Choice:
    """Choose the engine for the snapshot at `snapshot`; exports it when that is needed.

    Args:
        snapshot: folder with the model as it was logged, or an export.
        digest: of the snapshot, SHA-256.
        wanted: `auto`, `onnx`, `openvino` or `torch`.
        exports_dir: where exports are kept.
        task: what it shall answer; None takes what its architecture is for.
        precision: as in `registry.CANDIDATES`; `auto` is the engine's first, fp32.
        cache_dir: where `registry tune` keeps what it measured; None looks for nothing there.

    Raises:
        RegistryError: no engine can serve it; the hint names the ways out.
    """
    if cache_dir is not None and (wanted, precision) == (AUTO, AUTO):
        tuned = _tuned(snapshot, digest, exports_dir, task, cache_dir)
        if isinstance(tuned, Choice):
            return tuned
        plain = choose_engine(snapshot, digest, wanted=AUTO, exports_dir=exports_dir, task=task)
        return replace(plain, reason=f"{plain.reason}; {tuned}") if tuned else plain
    if (snapshot / EXPORT_FILE).is_file():
        return _exported(snapshot, digest, exports_dir, wanted, precision)
    if wanted == "torch":
        if precision not in (AUTO, "fp32"):
            raise registry.UsageError(
                f"torch serves fp32 only, not {precision}.", hint="Leave --precision out."
            )
        return _torch(snapshot, task, "asked for with --engine torch")
    candidate = registry.find_candidate(wanted, precision)
    if candidate != registry.CANDIDATES[0]:
        name = registry.read_source(snapshot, task).task.name
        return _derived(snapshot, digest, exports_dir, name, candidate)
    refused = _why_not(EXPORTER_MODULES)
    try:
        return _onnx(snapshot, digest, exports_dir, task, may_export=not refused)
    except (registry.ExportError, registry.GateRefusedError) as error:
        if wanted == "onnx":
            raise
        return _torch(snapshot, task, f"no valid export: {error.message}")


def _exported(folder: Path, digest: str, exports_dir: Path, wanted: str, precision: str) -> Choice:
    """Serve a folder that is an export, after looking at what is in it."""
    export = registry.check_export(folder, marks_dir=exports_dir / CHECKED, digest=digest)
    if wanted not in (AUTO, export.engine) or precision not in (AUTO, export.precision):
        if wanted != "torch" and (export.engine, export.precision) == _FIRST:
            candidate = registry.find_candidate(wanted, precision)
            return _derived(folder, digest, exports_dir, export.task, candidate)
        asked = f"--engine {wanted} --precision {precision}"
        raise registry.UnavailableError(
            f"{folder.name} is an export as {export.engine} {export.precision}: {asked} cannot "
            "serve it, and it has no weights for torch.",
            hint=f"Serve it with --engine {export.engine}, or serve the version it was made from.",
        )
    _check_usable(registry.find_candidate(export.engine, export.precision))
    return Choice(export.engine, folder, "", "the folder is an export", export.precision)


def _tuned(
    snapshot: Path, digest: str, exports_dir: Path, task: str | None, cache_dir: Path
) -> Choice | str:
    """Return what was chosen by measuring; else why that is not used, empty if nothing was."""
    own: registry.Export | None = None
    if (snapshot / EXPORT_FILE).is_file():
        own = registry.check_export(snapshot, marks_dir=exports_dir / CHECKED, digest=digest)
    name = own.task if own else registry.read_source(snapshot, task).task.name
    found = registry.find_tuning(cache_dir, digest, name)
    if found is None:
        return ""
    winner = found.tuning.winner
    reason = f"tuned: {found.tuning.summary()}"
    unused = f"{winner.name}, chosen by `registry tune`, is not used: "
    if found.stale:
        return unused + found.stale
    if winner.engine == "torch":
        missing = _why_not(TORCH_MODULES)
        return (
            unused + missing
            if missing
            else Choice("torch", snapshot, name, reason, layout=winner.layout)
        )
    export = registry.tuned_export(exports_dir, winner)
    if own is not None and not winner.export_key:
        export = own if (own.engine, own.precision) == (winner.engine, winner.precision) else None
    if export is None:
        return f"{unused}its export is gone"
    obstacle = registry.why_unusable(registry.find_candidate(winner.engine, winner.precision))
    if obstacle:
        return unused + obstacle
    return Choice(winner.engine, export.path, export.task, reason, winner.precision, winner.layout)


def _derived(
    snapshot: Path,
    digest: str,
    exports_dir: Path,
    wanted: str,
    candidate: registry.Candidate,
) -> Choice:
    """Serve what was asked for by name; there is no falling back to anything else."""
    _check_usable(candidate)
    engine, precision = candidate.engine, candidate.precision
    found = registry.find_export(exports_dir, digest, wanted, precision, engine)
    reason = "a valid export was in the cache"
    if found is None:
        found = registry.export_model(
            snapshot,
            digest=digest,
            exports_dir=exports_dir,
            task=wanted,
            engine=engine,
            precision=precision,
        )
        reason = f"asked for; agrees with fp32 within its budget ({found.report.reference})"
    return Choice(engine, found.path, found.task, reason, precision)


def _check_usable(candidate: registry.Candidate) -> None:
    obstacle = registry.why_unusable(candidate)
    if obstacle:
        raise registry.UnavailableError(
            f"{candidate.name} cannot run here: {obstacle}.",
            hint="Leave --engine and --precision out to serve fp32 with ONNX Runtime.",
        )


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
