"""What the first half of the exporting child leaves for the second: inputs and torch's answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from registry.export.messages import ChildRequest
from registry.export.parity import Encoded, Logits

MODEL_FILE = "model.onnx"
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
        samples: how many of the inputs came from the artifact.
        torch_s: how long torch took for its answers.
    """

    request: ChildRequest
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    architecture: str
    problem_type: str | None
    pad_id: int
    pad_left: bool
    samples: int
    torch_s: float


def write_evidence(
    directory: Path, evidence: Evidence, inputs: Sequence[Encoded], reference: Sequence[Logits]
) -> None:
    """Write facts and arrays into `directory`."""
    arrays: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = {}
    for index, (one, logits) in enumerate(zip(inputs, reference, strict=True)):
        arrays[f"reference/{index}"] = logits
        for name in evidence.input_names:
            arrays[f"{name}/{index}"] = one[name]
    with (directory / _ARRAYS).open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    (directory / _FACTS).write_bytes(msgspec.json.encode(evidence))


def read_evidence(directory: Path) -> tuple[Evidence, list[Encoded], list[Logits]]:
    """Return facts, inputs and torch's answers from `directory`."""
    evidence = msgspec.json.decode((directory / _FACTS).read_bytes(), type=Evidence)
    with np.load(directory / _ARRAYS, allow_pickle=False) as file:
        arrays: Mapping[str, Logits] = dict(file)
    count = sum(name.startswith("reference/") for name in arrays)
    inputs: list[Encoded] = [
        {name: arrays[f"{name}/{index}"] for name in evidence.input_names}  # type: ignore[misc]
        for index in range(count)
    ]
    return evidence, inputs, [arrays[f"reference/{index}"] for index in range(count)]
