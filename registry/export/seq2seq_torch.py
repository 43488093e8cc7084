"""A model with encoder and decoder run by torch, in the shape of its export."""

from __future__ import annotations

from typing import Any

import numpy as np

from registry.export.seq2seq_run import Arrays, EncoderDecoder, Run
from registry.export.source import ModelSource
from registry.export.torch_model import load_torch_model


def load_encoder_decoder(source: ModelSource, *, threads: int) -> EncoderDecoder:
    """Load the model in eval mode, float32, on the CPU.

    Args:
        source: a directory that passed `read_source`.
        threads: cores that torch may use; a setting of the whole process.

    Raises:
        RegistryError: as in `load_torch_model`, or the model has no encoder.
    """
    model, _ = load_torch_model(source, threads=threads)
    # After torch was found: without it, loading says what to install.
    from registry.export.seq2seq_model import (
        DecoderPart,
        EncoderPart,
        cache_shape,
        check_kind,
        with_row_positions,
    )

    check_kind(model)
    positions, (layers, heads, head_size) = with_row_positions(model), cache_shape(model)
    encoder = EncoderPart(model, positions)
    decoder = DecoderPart(model, positions, layers)
    return EncoderDecoder(_runner(encoder), _runner(decoder), layers, heads, head_size)


def _runner(part: Any) -> Run:
    import torch

    def run(feeds: Arrays) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
        with torch.inference_mode():
            outputs = part(
                **{name: torch.from_numpy(np.ascontiguousarray(one)) for name, one in feeds.items()}
            )
            return {name: one.numpy() for name, one in outputs.items()}

    return run
