"""A model with encoder and decoder as two graphs with a cache between them; needs torch.

    encoder   tokens of the source  ->  keys and values that every layer of the decoder attends to
    decoder   next tokens, those keys and values, the cache of the tokens before
              ->  logits, the cache with the next tokens in it

What the source means to the decoder is so computed once per source. Rows of the decoder may have
caches of different lengths: they are filled up on the left, and `attention_mask` says where.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from registry.errors import ExportError
from registry.export.graph import MAX_BATCH_ROWS, trace

if TYPE_CHECKING:
    import onnx_ir

Tensors = dict[str, torch.Tensor]

_PARTS = ("key", "value")
_EXAMPLE_ROWS = 2
_EXAMPLE_SOURCE = 5
_EXAMPLE_PAST = 4
_EXAMPLE_STEP = 3
# All different, and neither 0 nor 1: torch.export takes equal sizes for one, and bakes those in.


class _RowPositions(torch.nn.Module):  # type: ignore[misc]  # torch is untyped here
    """The decoder's table of positions, looked up by each row's own positions.

    Models number positions by the length of the cache, which is wrong for a row whose cache is
    shorter than the batch's.
    """

    def __init__(self, table: torch.nn.Module) -> None:
        super().__init__()
        # A sinusoidal table may be a buffer, numbered from behind the padding token.
        weights = getattr(table, "weight", None)
        self._first = getattr(table, "offset", 0)
        if weights is None:
            weights = table.weights
            self._first = int(table.padding_idx or 0) + 1
        self.weight = weights
        # In a list, so that setting it while the module is traced is no change of the module.
        self.now: list[torch.Tensor] = []

    def forward(self, *_: object, **__: object) -> torch.Tensor:
        return torch.nn.functional.embedding(self.now[0] + self._first, self.weight)


class EncoderPart(torch.nn.Module):  # type: ignore[misc]  # torch is untyped here
    """The encoder, and the decoder's projections of what it says.

    Args:
        model: an encoder-decoder model of transformers.
        positions: what `with_row_positions` returned for it.
    """

    def __init__(self, model: PreTrainedModel, positions: _RowPositions | None) -> None:
        super().__init__()
        self.model = model
        self._positions = [positions]

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Tensors:
        """Return `cross_<layer>_key` and `_value`, shape (rows, heads, source, size of a head)."""
        mask = _additive(attention_mask.bool()[:, None, None, :])
        states = self.model.get_encoder()(
            input_ids=input_ids, attention_mask=mask.expand(-1, 1, input_ids.shape[1], -1)
        ).last_hidden_state
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        first = torch.zeros_like(input_ids[:, :1])
        _place(self._positions[0], first)
        # One step of the decoder fills the cache; only the projections of it are kept.
        self.model(
            encoder_outputs=(states,),
            decoder_input_ids=first,
            past_key_values=cache,
            use_cache=True,
        )
        return _named("cross", cache.cross_attention_cache)


class DecoderPart(torch.nn.Module):  # type: ignore[misc]  # torch is untyped here
    """The decoder and the head.

    Args:
        model: an encoder-decoder model of transformers.
        positions: what `with_row_positions` returned for it.
        layers: of the decoder.
    """

    def __init__(
        self, model: PreTrainedModel, positions: _RowPositions | None, layers: int
    ) -> None:
        super().__init__()
        self.model = model
        self._positions = [positions]
        self._layers = layers

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        encoder_attention_mask: torch.Tensor,
        **caches: torch.Tensor,
    ) -> Tensors:
        """Return `logits` of every given token and the cache, `present_<layer>_key` and `_value`.

        Args:
            input_ids: (rows, step), the next tokens.
            attention_mask: (rows, past + step), 1 where a row has a token.
            encoder_attention_mask: (rows, source).
            caches: `past_<layer>_key` and `_value`, (rows, heads, past, size of a head), and
                `cross_<layer>_key` and `_value` as the encoder returned them.
        """
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        for layer in range(self._layers):
            cache.self_attention_cache.update(*_pair(caches, "past", layer), layer)
            cache.cross_attention_cache.update(*_pair(caches, "cross", layer), layer)
            cache.is_updated[layer] = True
        rows, step = input_ids.shape
        total = attention_mask.shape[1]
        seen = torch.arange(total)[None, :] <= (torch.arange(step) + (total - step))[:, None]
        _place(self._positions[0], (attention_mask.cumsum(1) - 1).clamp(min=0)[:, -step:])
        source = encoder_attention_mask.bool()[:, None, None, :]
        # Never read, for the cache has its keys and values; models take shapes from it.
        states = torch.zeros((rows, encoder_attention_mask.shape[1], self.model.config.hidden_size))
        found = self.model(
            encoder_outputs=(states,),
            attention_mask=_additive(source).expand(-1, 1, step, -1),
            decoder_input_ids=input_ids,
            decoder_attention_mask=_additive(seen & attention_mask.bool()[:, None, None, :]),
            past_key_values=cache,
            use_cache=True,
        )
        return {"logits": found.logits, **_named("present", cache.self_attention_cache)}


def with_row_positions(model: PreTrainedModel) -> _RowPositions | None:
    """Give the decoder positions by row, for good; None when it has no table of positions."""
    decoder = model.get_decoder()
    table = getattr(decoder, "embed_positions", None)
    if table is None:
        return None
    positions = _RowPositions(table)
    decoder.embed_positions = positions
    return positions


def cache_shape(model: PreTrainedModel) -> tuple[int, int, int]:
    """Return layers, heads and the size of a head of the decoder's cache."""
    config: Any = model.config
    layers = getattr(config, "decoder_layers", None) or getattr(config, "num_decoder_layers", None)
    heads = getattr(config, "decoder_attention_heads", None) or config.num_attention_heads
    size = getattr(config, "d_kv", None) or config.hidden_size // heads
    return int(layers or config.num_hidden_layers), int(heads), int(size)


def export_encoder(part: EncoderPart, *, max_tokens: int) -> onnx_ir.Model:
    """Return the encoder's graph, for any number of rows and sources of up to `max_tokens`.

    Raises:
        ExportError: the exporter cannot trace or convert this model.
    """
    ids = torch.ones((_EXAMPLE_ROWS, _EXAMPLE_SOURCE), dtype=torch.int64)
    axes = {0: _size("batch", MAX_BATCH_ROWS), 1: _size("source", max_tokens)}
    examples = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return trace(part, examples, dict.fromkeys(examples, axes))


def export_decoder(
    part: DecoderPart, shape: tuple[int, int, int], *, max_source: int, max_target: int
) -> onnx_ir.Model:
    """Return the decoder's graph, for any number of rows, sources, caches and steps.

    Args:
        part: the decoder.
        shape: as `cache_shape` has it.
        max_source, max_target: longest source and longest sequence, in tokens.

    Raises:
        ExportError: the exporter cannot trace or convert this model.
    """
    layers, heads, size = shape
    batch, source = _size("batch", MAX_BATCH_ROWS), _size("source", max_source)
    past, step = torch.export.Dim("past", min=0, max=max_target), _size("step", max_target)
    total = _EXAMPLE_PAST + _EXAMPLE_STEP
    examples = {
        "input_ids": torch.ones((_EXAMPLE_ROWS, _EXAMPLE_STEP), dtype=torch.int64),
        "attention_mask": torch.ones((_EXAMPLE_ROWS, total), dtype=torch.int64),
        "encoder_attention_mask": torch.ones((_EXAMPLE_ROWS, _EXAMPLE_SOURCE), dtype=torch.int64),
    }
    shapes: dict[str, dict[int, Any]] = {
        "input_ids": {0: batch, 1: step},
        "attention_mask": {0: batch, 1: torch.export.Dim.AUTO},
        "encoder_attention_mask": {0: batch, 1: source},
    }
    for kind, tokens, axis in (("past", _EXAMPLE_PAST, past), ("cross", _EXAMPLE_SOURCE, source)):
        for layer in range(layers):
            for part_name in _PARTS:
                name = f"{kind}_{layer}_{part_name}"
                examples[name] = torch.zeros((_EXAMPLE_ROWS, heads, tokens, size))
                shapes[name] = {0: batch, 2: axis}
    return trace(part, examples, shapes)


def check_kind(model: PreTrainedModel) -> None:
    """Raise ExportError if it is no model with encoder, decoder and a start token."""
    if not model.config.is_encoder_decoder:
        raise ExportError(f"{type(model).__name__} has no encoder: it rewrites nothing.")
    settings: Any = model.generation_config
    if settings.decoder_start_token_id is None and settings.bos_token_id is None:
        raise ExportError(
            "Nothing says with which token an answer begins.",
            hint="Set decoder_start_token_id in generation_config.json and log the model again.",
        )


def _size(name: str, most: int) -> Any:
    return torch.export.Dim(name, min=1, max=most)


def _additive(allowed: torch.Tensor) -> torch.Tensor:
    """Return 0 where attention is allowed, else the least number: a row without any is no NaN."""
    nothing = torch.zeros((), dtype=torch.float32)
    return torch.where(allowed, nothing, torch.finfo(torch.float32).min)


def _place(positions: _RowPositions | None, now: torch.Tensor) -> None:
    if positions is not None:
        positions.now[:] = [now]


def _pair(caches: Tensors, kind: str, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    return caches[f"{kind}_{layer}_key"], caches[f"{kind}_{layer}_value"]


def _named(kind: str, cache: DynamicCache) -> Tensors:
    named: Tensors = {}
    for layer, held in enumerate(cache.layers):
        named[f"{kind}_{layer}_key"] = held.keys
        named[f"{kind}_{layer}_value"] = held.values
    return named


def shared_tables(encoder: onnx_ir.Model) -> dict[str, onnx_ir.TensorProtocol]:
    """Return the encoder's tables of a token each, by name: the decoder may have the same."""
    return {
        name: value.const_value
        for name, value in encoder.graph.initializers.items()
        if value.const_value is not None
        and any(use.node.op_type == "Gather" for use in value.uses())
    }


def share_tables(
    decoder: onnx_ir.Model, tables: Mapping[str, onnx_ir.TensorProtocol]
) -> tuple[str, ...]:
    """Let the decoder's head be the table of its tokens, turned, where it is; the graph is changed.

    Returns:
        Names of the tables that the decoder has in common with the encoder.
    """
    import onnx_ir

    weights = decoder.graph.initializers
    shared = []
    for name, table in tables.items():
        own = weights.get(name)
        if own is None or not _equal(own.const_value, table):
            continue
        shared.append(name)
        turned = table.numpy().T
        for head in [*weights.values()]:
            if head.const_value is None or tuple(head.const_value.shape.numpy()) != turned.shape:
                continue
            if np.array_equal(head.const_value.numpy(), turned):
                node = onnx_ir.node("Transpose", [own], {"perm": [1, 0]})
                node.outputs[0].shape, node.outputs[0].type = head.shape, head.type
                decoder.graph.insert_before(next(iter(decoder.graph)), node)
                head.replace_all_uses_with(node.outputs[0])
                del weights[str(head.name)]
    return tuple(shared)


def _equal(one: onnx_ir.TensorProtocol | None, other: onnx_ir.TensorProtocol) -> bool:
    return one is not None and np.array_equal(one.numpy(), other.numpy())
