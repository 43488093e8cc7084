"""The two graphs of an encoder-decoder export, run with numpy: encode once, decode step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from registry.export.session import open_session

if TYPE_CHECKING:
    import onnxruntime

ENCODER_FILE = "encoder.onnx"
DECODER_FILE = "decoder.onnx"

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Arrays: TypeAlias = Mapping[str, Array]

Run: TypeAlias = Callable[[Arrays], dict[str, Array]]
"""Runs a graph on inputs by name; returns its outputs by name."""


@dataclass(frozen=True, slots=True)
class EncodedSource:
    """What the encoder made of a batch of sources.

    Attributes:
        mask: (rows, source), 1 where a row has a token.
        cross: keys and values by input name of the decoder.
    """

    mask: Array
    cross: Arrays


@dataclass(frozen=True, slots=True)
class EncoderDecoder:
    """Encoder and decoder of one model; holds no state between calls.

    Attributes:
        run_encoder, run_decoder: run them.
        layers, heads, head_size: of the decoder's cache.
    """

    run_encoder: Run
    run_decoder: Run
    layers: int
    heads: int
    head_size: int

    def encode(self, sources: Sequence[Array], pad_id: int) -> EncodedSource:
        """Run the encoder on these rows of tokens, filled up on the right."""
        longest = max(len(one) for one in sources)
        ids = np.full((len(sources), longest), pad_id, dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, one in enumerate(sources):
            ids[row, : len(one)] = one
            mask[row, : len(one)] = 1
        return EncodedSource(mask, self.run_encoder({"input_ids": ids, "attention_mask": mask}))

    def empty_cache(self, rows: int) -> dict[str, Array]:
        """Return the cache of rows that have no token yet."""
        shape = (rows, self.heads, 0, self.head_size)
        return {
            f"past_{layer}_{part}": np.zeros(shape, dtype=np.float32)
            for layer in range(self.layers)
            for part in ("key", "value")
        }

    def decode(
        self, tokens: Array, mask: Array, source: EncodedSource, past: Arrays
    ) -> tuple[Array, dict[str, Array]]:
        """Add one token to each row.

        Args:
            tokens: (rows,).
            mask: (rows, past + 1), 1 where a row has a token; rows are filled up on the left.
            source: of the same rows.
            past: the cache, by input name.

        Returns:
            Logits after the token, (rows, vocabulary), and the cache with it.
        """
        feeds = {
            "input_ids": tokens[:, None],
            "attention_mask": mask,
            "encoder_attention_mask": source.mask,
            **source.cross,
            **past,
        }
        outputs = self.run_decoder(feeds)
        logits = outputs.pop("logits")[:, -1]
        return logits, {name.replace("present", "past", 1): part for name, part in outputs.items()}


def open_encoder_decoder(directory: Path, *, threads: int) -> EncoderDecoder:
    """Open the two graphs of an export with ONNX Runtime.

    Raises:
        IntegrityError: ONNX Runtime cannot load one of them.
    """
    encoder = open_session(directory / ENCODER_FILE, threads=threads)
    decoder = open_session(directory / DECODER_FILE, threads=threads)
    shapes = {value.name: value.shape for value in decoder.get_inputs()}
    keys = [name for name in shapes if name.startswith("past_") and name.endswith("_key")]
    _, heads, _, head_size = shapes[keys[0]]
    return EncoderDecoder(_runner(encoder), _runner(decoder), len(keys), heads, head_size)


def _runner(session: onnxruntime.InferenceSession) -> Run:
    inputs = {value.name for value in session.get_inputs()}
    names = [value.name for value in session.get_outputs()]

    def run(feeds: Arrays) -> dict[str, Array]:
        given = {name: array for name, array in feeds.items() if name in inputs}
        return dict(zip(names, session.run(names, given), strict=True))

    return run
