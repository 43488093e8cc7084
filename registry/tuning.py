"""What `registry tune` measured of a version and chose: kept in the cache, read when it is served.

    tuned/<digits of the snapshot>-<hash>.json

Addressed by all that the figures depend on: snapshot, task, machine, versions of the tools. One
file holds the whole measurement. A choice that another machine or other tools made is found, but
said to be stale, never used.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from registry.errors import UsageError
from registry.export.store import Export, is_intact, read_export
from registry.store.census import TUNED
from registry.store.durable import storage_errors, write_durably

FORMAT = 1
"""Version of the file; a reader ignores files of another."""

OBJECTIVES = ("throughput", "latency", "memory")
"""What a choice may be for; the first is the default."""

_DIGITS = 32
_TOOLS = ("onnxruntime", "openvino", "runport", "tokenizers")
_TORCH_TOOLS = ("torch", "transformers")
_CPU_FACTS = Path("/proc/cpuinfo")


class TuningLayout(msgspec.Struct, frozen=True):
    """How a worker uses the cores.

    Attributes:
        engine_threads: threads inside the engine for one batch.
        slots: batches that run at once.
        max_batch_rows: rows of a batch, at most; 1 runs every row alone.
    """

    engine_threads: int
    slots: int
    max_batch_rows: int

    @property
    def words(self) -> str:
        """The layout for people, such as `1x2`: threads times slots."""
        alone = " alone" if self.max_batch_rows == 1 else ""
        return f"{self.engine_threads}x{self.slots}{alone}"


class TuningRow(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of one candidate in one layout; None where it could not be.

    Attributes:
        engine, precision: the candidate.
        layout: how it used the cores; None for a candidate that was never started.
        export_key: the export that ran; empty for torch.
        items_per_s: answered inputs a second at saturation, median of the rounds.
        speed: ratio of that to the reference in the same round, median; `speed_low` and
            `speed_high` are the least and the greatest of the rounds.
        latency_p50_ms, latency_p95_ms: of single inputs to an idle worker, median of the rounds.
        latency_ratio: of the median latency to the reference's in the same round, median; below 1
            is quicker.
        resident_bytes, growth_bytes: resident memory of its worker after the measurement, and how
            much of it came with the model.
        disagreement: share of inputs (of their tokens, for tasks that label tokens) whose answer
            is another than the reference's, each alone.
        max_score_diff: largest difference of a score to the reference's.
        mates_disagreement, mates_score_diff: the same between an input alone and among others.
        batched: inputs that shared a batch in that comparison.
        batch_invariant: whether, in batches, an answer depends on its own input alone.
        eligible: whether it could be chosen; `reason` says why not, or what else there is to say.
    """

    engine: str
    precision: str
    layout: TuningLayout | None = None
    export_key: str = ""
    items_per_s: float | None = None
    speed: float | None = None
    speed_low: float | None = None
    speed_high: float | None = None
    latency_p50_ms: float | None = None
    latency_p95_ms: float | None = None
    latency_ratio: float | None = None
    resident_bytes: int | None = None
    growth_bytes: int | None = None
    disagreement: float | None = None
    max_score_diff: float | None = None
    mates_disagreement: float | None = None
    mates_score_diff: float | None = None
    batched: int = 0
    batch_invariant: bool | None = None
    eligible: bool = False
    reason: str = ""

    @property
    def name(self) -> str:
        """`engine/precision`, as `--candidate` takes it."""
        return f"{self.engine}/{self.precision}"


class Tuning(msgspec.Struct, frozen=True, kw_only=True):
    """A whole measurement, and what follows from it.

    Attributes:
        digest: of the snapshot, SHA-256.
        task: such as `text-classification`.
        machine, tools: where it was measured, and with which versions.
        objective: `throughput`, `latency` or `memory`.
        budget: largest share of answers that may differ from the reference's.
        named: the candidates that were asked for; empty for all.
        inputs: how many were answered; `inputs_from` says where they came from.
        lengths: tokens of an input: `p50`, `p95`, `max`.
        reference: the candidate and layout that all others are compared with, as people write it.
        rounds: how often each was measured at most, in turn.
        load_before, load_after: runnable processes of the machine (one minute's average).
        seconds: how long it took.
        created_at_s: Unix time.
        rows: every candidate in every layout.
        chosen: index of the winner in `rows`.
        why: in a sentence.
    """

    digest: str
    task: str
    machine: dict[str, str]
    tools: dict[str, str]
    objective: str
    budget: float
    named: tuple[str, ...]
    inputs: int
    inputs_from: str
    lengths: dict[str, int]
    reference: str
    rounds: int
    load_before: float
    load_after: float
    seconds: float
    created_at_s: float
    rows: tuple[TuningRow, ...]
    chosen: int
    why: str
    format: int = FORMAT

    @property
    def winner(self) -> TuningRow:
        """The candidate and layout that was chosen."""
        return self.rows[self.chosen]

    def summary(self) -> str:
        """Return the choice as one line for people."""
        row = self.winner
        words = row.layout.words if row.layout else ""
        return (
            f"{row.name} {words}: {row.speed or 0:.2f} times {self.reference}, "
            f"answers differ on {row.disagreement or 0:.2%} of {self.inputs} inputs"
        )


@dataclass(frozen=True, slots=True)
class FoundTuning:
    """A stored measurement.

    Attributes:
        path: its file.
        tuning: what it says.
        stale: why it does not hold here and now; empty when it does.
    """

    path: Path
    tuning: Tuning
    stale: str


def machine_facts() -> dict[str, str]:
    """Return what speed depends on of this machine: processor, cores that may be used, features."""
    model = platform.processor() or platform.machine()
    flags = ""
    with contextlib.suppress(OSError):
        for line in _CPU_FACTS.read_text("utf-8", "replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                model = value.strip()
            elif name.strip() == "flags":
                flags = " ".join(sorted(value.split()))
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it.
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return {
        "processor": model,
        "cores": str(cores),
        "features": hashlib.sha256(flags.encode()).hexdigest()[:12],
        "machine": platform.machine(),
    }


def tuning_tools(*, torch: bool = False) -> dict[str, str]:
    """Return the versions of what runs candidates.

    Args:
        torch: with those that only a torch candidate needs.
    """
    versions = {}
    for name in (*_TOOLS, *(_TORCH_TOOLS if torch else ())):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def keep_tuning(cache_dir: Path, tuning: Tuning) -> Path:
    """Store a measurement in one rename; an older one of the same key is replaced.

    Raises:
        StorageError: the disk refuses.
    """
    path = _folder(cache_dir) / _name(tuning)
    with storage_errors(f"store the measurement {path.name}"):
        write_durably(path, msgspec.json.format(msgspec.json.encode(tuning), indent=2) + b"\n")
    return path


def find_tuning(cache_dir: Path, digest: str, task: str) -> FoundTuning | None:
    """Return the newest measurement of a snapshot that holds here, else the newest stale one.

    Raises:
        UsageError: `digest` is not a SHA-256 in hexadecimal.
    """
    found = [one for one in list_tunings(cache_dir, digest) if one.tuning.task == task]
    return max(found, key=lambda one: (not one.stale, one.tuning.created_at_s), default=None)


def tuned_export(exports_dir: Path, row: TuningRow) -> Export | None:
    """Return the very export that was measured; None when it is gone or has changed."""
    export = read_export(exports_dir / row.export_key) if row.export_key else None
    return export if export is not None and is_intact(export) else None


def list_tunings(cache_dir: Path, digest: str) -> list[FoundTuning]:
    """Return all measurements of a snapshot, also stale ones; a broken file is passed over.

    Raises:
        UsageError: `digest` is not a SHA-256 in hexadecimal.
        StorageError: the folder cannot be read.
    """
    if len(digest) != hashlib.sha256().digest_size * 2:
        raise UsageError(
            f"{digest!r} is not a snapshot digest.", hint="It is a SHA-256 of 64 hex digits."
        )
    with storage_errors(f"read {_folder(cache_dir)}"):
        paths = sorted(_folder(cache_dir).glob(f"{digest[:_DIGITS]}-*.json"))
    read = ((path, _read(path)) for path in paths)
    return [
        FoundTuning(path, tuning, _why_stale(tuning))
        for path, tuning in read
        if tuning is not None and tuning.digest == digest
    ]


def _folder(cache_dir: Path) -> Path:
    return cache_dir / TUNED


def _name(tuning: Tuning) -> str:
    parts: dict[str, Any] = {
        "format": FORMAT,
        "digest": tuning.digest,
        "task": tuning.task,
        "machine": tuning.machine,
        "tools": tuning.tools,
    }
    shaped = hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()
    return f"{tuning.digest[:_DIGITS]}-{shaped[:16]}.json"


def _read(path: Path) -> Tuning | None:
    try:
        tuning = msgspec.json.decode(path.read_bytes(), type=Tuning)
    except (OSError, msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    whole = tuning.format == FORMAT and 0 <= tuning.chosen < len(tuning.rows)
    return tuning if whole and tuning.winner.layout is not None else None


def _why_stale(tuning: Tuning) -> str:
    machine = machine_facts()
    if tuning.machine != machine:
        there, here = _words(tuning.machine), _words(machine)
        detail = "other features" if there == here else f"{there}; this is {here}"
        return f"it was measured on another machine ({detail})"
    # The winner alone runs: what else was measured may have changed since.
    wanted = (*_TOOLS, *(_TORCH_TOOLS if tuning.winner.engine == "torch" else ()))
    tools = tuning_tools(torch=True)
    changed = [
        f"{name} {tuning.tools.get(name, 'absent')} is now {tools.get(name, 'absent')}"
        for name in wanted
        if tuning.tools.get(name) != tools.get(name)
    ]
    return f"the tools have changed since: {', '.join(changed)}" if changed else ""


def _words(machine: Mapping[str, str]) -> str:
    return f"{machine.get('processor', 'unknown')}, {machine.get('cores', '?')} cores"
