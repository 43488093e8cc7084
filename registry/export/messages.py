"""What the exporting process and its child say to each other: JSON, one line each."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from registry.export.report import ParityReport


class ChildRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of the child's stdin.

    Attributes:
        model_dir: the model directory.
        output_dir: empty; the child writes the export's files into it.
        task: name of the task.
        tolerance: of the parity gate.
        threads: cores to use.
        memory_limit_bytes: address space that the child gives itself.
        cpu_limit_s: processor time that the child gives itself.
        file_limit_bytes: longest file that the child may write.
        tools: versions, for the report.
    """

    model_dir: str
    output_dir: str
    task: str
    tolerance: float
    threads: int
    memory_limit_bytes: int
    cpu_limit_s: int
    file_limit_bytes: int
    tools: dict[str, str]


class DeriveRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of the stdin of a child that derives an export from another.

    Attributes:
        base_dir: the finished fp32 ONNX export.
        output_dir: empty; the child writes the export's files into it.
        engine, precision: which candidate.
        tolerance, min_agreement: of the gate; `min_agreement` is None where only rounding differs.
        samples: a file of JSON lines; None draws inputs.
        threads, memory_limit_bytes, cpu_limit_s, file_limit_bytes, tools: as in `ChildRequest`.
    """

    base_dir: str
    output_dir: str
    engine: str
    precision: str
    tolerance: float
    min_agreement: float | None
    samples: str | None
    threads: int
    memory_limit_bytes: int
    cpu_limit_s: int
    file_limit_bytes: int
    tools: dict[str, str]


class TrialRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of the stdin of a child that tries an export from elsewhere.

    Attributes:
        directory: the export.
        threads, memory_limit_bytes, cpu_limit_s, file_limit_bytes: as in `ChildRequest`.
    """

    directory: str
    threads: int
    memory_limit_bytes: int
    cpu_limit_s: int
    file_limit_bytes: int


class Progress(msgspec.Struct, frozen=True, tag=True):
    """A stage has begun; `text` is for people."""

    text: str


class Failure(msgspec.Struct, frozen=True, tag=True):
    """A `RegistryError` by its code, message and hint."""

    code: str
    error: str
    hint: str


class Success(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """The export's files are written; whether they are good is in the report.

    `fusions` are the steps that changed the graph, and in how many places.
    """

    report: ParityReport
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    architecture: str
    peak_memory_bytes: int
    fusions: dict[str, int] = {}


FromChild: TypeAlias = Progress | Failure | Success
