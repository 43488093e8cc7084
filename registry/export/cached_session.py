"""A decoder's graph with the memory that its sequences grow in: the same for parity and serving.

Row by row the cache has room for `capacity_tokens`. A run works on neighbouring rows and writes
their new keys and values in place; ONNX Runtime is given addresses, and nothing is copied.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from registry.errors import IntegrityError, UnavailableError
from registry.export.session import open_session

if TYPE_CHECKING:
    import onnxruntime

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]

_LEAST_RUNTIME = (1, 32)
# The first whose GroupQueryAttention takes `query_seqlens`; older ones call the graph invalid.

_PAGE_TOKENS = 1024
# Capacities are multiples of it, so that each row is whole pages, which can be given back alone.


class CachedSession:
    """Runs tokens of several sequences, each in its row of the cache.

    Args:
        session: of a graph made by `registry.export.cached_graph`.
        keys, values: of each layer, (rows, heads, capacity, size).
        memory: what they lie in, one for each array.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        keys: Sequence[Floats],
        values: Sequence[Floats],
        memory: Sequence[mmap.mmap],
    ) -> None:
        self._session = session
        self._arrays = {
            f"{kind}_{layer}": array
            for kind, arrays in (("key", keys), ("value", values))
            for layer, array in enumerate(arrays)
        }
        self._memory = memory
        self.vocabulary = int(session.get_outputs()[0].shape[1])
        self.rows, _, self.capacity_tokens, _ = keys[0].shape

    @property
    def token_bytes(self) -> int:
        """Bytes of cache for one token."""
        return sum(
            array.nbytes // (array.shape[0] * array.shape[2]) for array in self._arrays.values()
        )

    def run(self, first_row: int, tokens: Sequence[Sequence[int]], cached: Sequence[int]) -> Floats:
        """Add tokens to neighbouring rows and return the logits after the last one of each.

        Args:
            first_row: where the first sequence lies.
            tokens: of each row, those to be added; a row without any is left as it is.
            cached: of each row, how many tokens it holds already; those beyond are forgotten.

        Returns:
            Shape (rows, vocabulary); of rows without tokens, anything.
        """
        rows, longest = len(tokens), max(len(one) for one in tokens)
        ids = np.zeros((rows, longest), dtype=np.int64)
        for index, one in enumerate(tokens):
            ids[index, : len(one)] = one
        new = np.array([len(one) for one in tokens], dtype=np.int32)
        lengths = np.maximum(np.array(cached, dtype=np.int32) + new, 1)
        logits = np.empty((rows, self.vocabulary), dtype=np.float32)
        binding = self._session.io_binding()
        binding.bind_cpu_input("input_ids", ids)
        binding.bind_cpu_input("lengths", lengths)
        binding.bind_cpu_input("new_lengths", new)
        binding.bind_cpu_input("longest", np.array(lengths.max(), dtype=np.int32))
        _bind(binding.bind_output, "logits", logits)
        for name, array in self._arrays.items():
            part = array[first_row : first_row + rows]
            _bind(binding.bind_input, f"past_{name}", part)
            _bind(binding.bind_output, f"present_{name}", part)
        self._session.run_with_iobinding(binding)
        return logits

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Copy the first tokens of one row to another."""
        for array in self._arrays.values():
            array[target, :, :tokens] = array[source, :, :tokens]

    def release(self, row: int) -> None:
        """Give the memory of a row back; its tokens are gone."""
        for memory, array in zip(self._memory, self._arrays.values(), strict=True):
            memory.madvise(mmap.MADV_DONTNEED, row * array[0].nbytes, array[0].nbytes)


def check_runtime(version: str) -> None:
    """Check that an ONNX Runtime of this version runs the graphs of decoders.

    Raises:
        UnavailableError: it is too old.
    """
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None or (int(found[1]), int(found[2])) < _LEAST_RUNTIME:
        least = ".".join(map(str, _LEAST_RUNTIME))
        raise UnavailableError(
            f"Text generation needs ONNX Runtime {least} or newer; {version} is installed.",
            hint=f"pip install 'onnxruntime>={least}'",
        )


def open_cached_session(
    path: Path, *, threads: int, rows: int, capacity_tokens: int, row_bytes: int | None = None
) -> CachedSession:
    """Open a decoder and map memory for its cache, which is taken as it fills.

    Args:
        path: the graph.
        threads: cores that one run may use.
        rows: sequences at once.
        capacity_tokens: longest sequence; rounded up.
        row_bytes: room for each sequence, where that is less; None sets no bound.

    Raises:
        IntegrityError: ONNX Runtime cannot load the file, or it is no such graph.
        UnavailableError: ONNX Runtime is too old for it.
    """
    import onnxruntime

    check_runtime(onnxruntime.__version__)
    session = open_session(path, threads=threads)
    shapes = {value.name: value.shape for value in session.get_inputs()}
    caches = {name: shape for name, shape in shapes.items() if name.startswith("past_")}
    if not caches:
        raise IntegrityError(f"{path.name} has no cache.", hint="Export again with --force.")
    layers = len(caches) // 2
    if row_bytes is not None:
        token_bytes = 4 * sum(heads * size for _, heads, _, size in caches.values())
        capacity_tokens = max(1, min(capacity_tokens, row_bytes // token_bytes))
    capacity = -(-capacity_tokens // _PAGE_TOKENS) * _PAGE_TOKENS
    memory: list[mmap.mmap] = []
    arrays: dict[str, list[Floats]] = {"key": [], "value": []}
    for kind, made in arrays.items():
        for layer in range(layers):
            _, heads, _, size = shapes[f"past_{kind}_{layer}"]
            shape = (rows, int(heads), capacity, int(size))
            # Anonymous memory costs nothing until it is written to.
            memory.append(mmap.mmap(-1, int(np.prod(shape)) * 4, flags=mmap.MAP_PRIVATE))
            made.append(np.frombuffer(memory[-1], dtype=np.float32).reshape(shape))
    return CachedSession(session, arrays["key"], arrays["value"], memory)


def _bind(bind: Any, name: str, array: Floats) -> None:
    bind(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
