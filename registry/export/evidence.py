"""What the first half of the exporting child leaves for the second: inputs and torch's answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from registry.export.messages import ChildRequest
from registry.export.parity import Answer, Encoded

MODEL_FILE = "model.onnx"

PLAIN_FILE = "plain.onnx"
"""The graph as the exporter made it, over the same weights: for whoever is not ONNX Runtime."""

_FACTS = "evidence.json"
_ARRAYS = "evidence.npz"


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Facts that go with the arrays.

    Attributes:
        request: what the parent asked for.
        input_names, output_names: of the graph, in order.
        architecture: class of the model.
        problem_type: as in its config.
        pad_id, pad_left: how rows are filled up.
        inputs: how many there are.
        samples: how many of the inputs came from the artifact.
        torch_s: how long torch took for its answers.
        fusions: see `registry.export.fusion.fuse`.
    """

    request: ChildRequest
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    architecture: str
    problem_type: str | None
    pad_id: int
    pad_left: bool
    inputs: int
    samples: int
    torch_s: float
    fusions: dict[str, int] = {}


def write_evidence(
    directory: Path, evidence: Evidence, inputs: Sequence[Encoded], reference: Sequence[Answer]
) -> None:
    """Write facts and arrays into `directory`."""
    arrays: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = {}
    for index, (one, answer) in enumerate(zip(inputs, reference, strict=True)):
        for name, output in answer.items():
            arrays[f"output/{name}/{index}"] = output
        for name in evidence.input_names:
            arrays[f"input/{name}/{index}"] = one[name]
    with (directory / _ARRAYS).open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    (directory / _FACTS).write_bytes(msgspec.json.encode(evidence))


def read_evidence(directory: Path) -> tuple[Evidence, list[Encoded], list[Answer]]:
    """Return facts, inputs and torch's answers from `directory`."""
    evidence = msgspec.json.decode((directory / _FACTS).read_bytes(), type=Evidence)
    with np.load(directory / _ARRAYS, allow_pickle=False) as file:
        arrays: Mapping[str, Any] = dict(file)
    inputs: list[Encoded] = [
        {name: arrays[f"input/{name}/{index}"] for name in evidence.input_names}
        for index in range(evidence.inputs)
    ]
    reference: list[Answer] = [
        {name: arrays[f"output/{name}/{index}"] for name in evidence.output_names}
        for index in range(evidence.inputs)
    ]
    return evidence, inputs, reference
