"""What an ONNX file holds, read without any ONNX library: nothing of it is run or believed.

For exports that came from elsewhere. Whoever can write into a W&B project can write an
`export.json` with matching digests: so the graph itself must be one that an export of ours could
be. What stays (constants that unfold, for example) is caught by loading it in a process with
limits, see `received`.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from registry.errors import UnsafeContentError
from registry.export.evidence import MODEL_FILE
from registry.export.seq2seq_run import ENCODER_FILE

ALLOWED_DOMAINS = frozenset({"", "ai.onnx", "com.microsoft"})
"""Operators that ONNX Runtime itself brings; any other domain would be somebody's library."""

REFUSED_OPERATORS = frozenset({"Loop", "Scan", "SequenceMap", "PyOp", "OpaqueOp"})
"""Operators that run for as long as the data says; no export of ours has one."""

LENDERS = (MODEL_FILE, ENCODER_FILE)
"""Graphs whose weights the other graphs of an export may share."""

MAX_NODES = 200_000
_MAX_FIELDS = 4_000_000
_MAX_DEPTH = 4
_MAX_VARINT_BYTES = 10
_ELEMENT_BYTES = {
    1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2,
}  # fmt: skip

_Field: TypeAlias = "tuple[int, int | memoryview]"


def check_onnx(path: Path) -> None:
    """Check that the file is a graph of ours as far as its structure goes.

    Refused are: operators of other domains, loops, functions (they may unfold without end), data
    in files that no export has, tensors whose bytes do not fit their shape, and what is no ONNX.

    Raises:
        UnsafeContentError: one of these; the message says which.
    """
    name = path.name
    if not path.stat().st_size:
        raise _refused(name, "is empty")
    problem: UnsafeContentError | None = None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        view = memoryview(mapped)
        try:
            _Walk(name).model(view)
        except (IndexError, ValueError, UnicodeDecodeError, OverflowError):
            problem = _refused(name, "is no ONNX file")
        except UnsafeContentError as error:
            # Its frames hold views of the file, which could not be closed.
            problem = error.with_traceback(None)
        finally:
            view.release()
    if problem is not None:
        raise problem


@dataclass(slots=True)
class _Walk:
    """One pass over a file, counting what it meets."""

    name: str
    fields: int = 0
    nodes: int = 0

    def model(self, view: memoryview) -> None:
        graphs = 0
        for number, value in self._read(view):
            if number == 7:
                self._graph(_message(value), 0)
                graphs += 1
            elif number == 8:
                self._domain(_text_of(self._find(_message(value), 1)))
            elif number == 25:
                raise _refused(self.name, "defines functions of its own")
            elif number == 20:
                raise _refused(self.name, "holds training steps")
        if not graphs:
            raise _refused(self.name, "holds no graph")

    def _graph(self, view: memoryview, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise _refused(self.name, "nests graphs too deeply")
        for number, value in self._read(view):
            if number == 1:
                self._node(_message(value), depth)
            elif number == 5:
                self._tensor(_message(value))
            elif number == 15:
                raise _refused(self.name, "holds sparse weights")

    def _node(self, view: memoryview, depth: int) -> None:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise _refused(self.name, f"has more than {MAX_NODES} nodes")
        for number, value in self._read(view):
            if number == 4 and _text_of(value) in REFUSED_OPERATORS:
                raise _refused(self.name, f"runs the operator {_text_of(value)}")
            if number == 7:
                self._domain(_text_of(value))
            elif number == 5:
                self._attribute(_message(value), depth)

    def _attribute(self, view: memoryview, depth: int) -> None:
        for number, value in self._read(view):
            if number in (5, 10):
                self._tensor(_message(value))
            elif number in (6, 11):
                self._graph(_message(value), depth + 1)
            elif number in (22, 23):
                raise _refused(self.name, "holds sparse weights")

    def _tensor(self, view: memoryview) -> None:
        dims: list[int] = []
        kind, raw_bytes, external = 0, None, False
        for number, value in self._read(view):
            if number == 1:
                dims += _numbers(value)
            elif number == 2 and isinstance(value, int):
                kind = value
            elif number == 9:
                raw_bytes = len(_message(value))
            elif number == 13:
                external = True
                self._place(_message(value))
        elements = 1
        for size in dims:
            elements *= size
        wanted = elements * _ELEMENT_BYTES.get(kind, 0)
        if raw_bytes is not None and not external and wanted and raw_bytes != wanted:
            raise _refused(self.name, "has a tensor whose bytes do not fit its shape")

    def _place(self, entry: memoryview) -> None:
        key = _text_of(self._find(entry, 1))
        if key != "location":
            return
        # A graph may share the weights of the one beside it.
        lenders = {f"{name}{end}" for name in LENDERS for end in ("", ".data")}
        if _text_of(self._find(entry, 2)) not in {f"{self.name}.data", *lenders}:
            raise _refused(self.name, "reads its weights from another file")

    def _domain(self, domain: str) -> None:
        if domain not in ALLOWED_DOMAINS:
            raise _refused(self.name, f"needs operators of the domain {domain!r}")

    def _find(self, view: memoryview, wanted: int) -> int | memoryview:
        for number, value in self._read(view):
            if number == wanted:
                return value
        return view[:0]

    def _read(self, view: memoryview) -> Iterator[_Field]:
        """Yield number and value of each field; embedded messages and bytes as views."""
        at, end = 0, len(view)
        while at < end:
            self.fields += 1
            if self.fields > _MAX_FIELDS:
                raise _refused(self.name, "has too many parts")
            key, at = _varint(view, at)
            kind = key & 7
            if kind == 0:
                number, at = _varint(view, at)
                yield key >> 3, number
                continue
            if kind not in (1, 2, 5):
                raise ValueError(f"wire type {kind}")
            size, at = _varint(view, at) if kind == 2 else (8 if kind == 1 else 4, at)
            if at + size > end:
                raise ValueError("cut short")
            yield key >> 3, view[at : at + size]
            at += size


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    number = 0
    for index in range(_MAX_VARINT_BYTES):
        byte = view[at + index]
        number |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return number, at + index + 1
    raise ValueError("a number without end")


def _numbers(value: int | memoryview) -> list[int]:
    """Return one number, or those of a packed field."""
    if isinstance(value, int):
        return [value]
    numbers, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        numbers.append(number)
    return numbers


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where a message belongs")
    return value


def _text_of(value: int | memoryview) -> str:
    return bytes(_message(value)).decode("utf-8")


def _refused(name: str, why: str) -> UnsafeContentError:
    return UnsafeContentError(
        f"{name} {why}; no export of ours does.",
        hint="Export the version that it was made from again: `registry export`.",
    )
