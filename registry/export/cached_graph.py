"""A decoder -> one ONNX graph that runs prompts and steps over a cache in place; needs torch.

The attention of every layer becomes one `GroupQueryAttention`, which reads and writes keys and
values where they lie: a step copies no cache, and each row attends over its own length alone, so
that rows of any lengths share a run. All else is what transformers' model does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from registry.errors import ExportError

if TYPE_CHECKING:
    import onnx_ir

INPUTS = ("input_ids", "lengths", "new_lengths", "longest")
"""Inputs besides the cache; see `registry.export.cached_session`, which feeds them."""

OUTPUT = "logits"

_ATTENTION = "runport_cached"
_OPERATOR = "com.microsoft::GroupQueryAttention"
_EXAMPLE = {"rows": 2, "tokens": 5, "capacity": 16}  # neither 0 nor 1: those are baked in
_UNUSED_OPERANDS = 9  # optional operands between the lengths and `query_seqlens`


class _LayersCache:
    """Stands where transformers expects its cache; the operator keeps the real one.

    Args:
        past: keys and values of each layer, (rows, heads, capacity, size).
        lengths, new_lengths, longest: as the graph has them.
    """

    is_compileable = False

    def __init__(
        self, past: Sequence[tuple[Any, Any]], lengths: Any, new_lengths: Any, longest: Any
    ) -> None:
        self._past = past
        self._lengths = lengths
        self._new_lengths = new_lengths
        self._longest = longest
        self._present: dict[int, tuple[Any, Any]] = {}

    def update(self, key: Any, value: Any, *_: Any, **__: Any) -> tuple[Any, Any]:
        """Return keys and values as they are: attention adds them to the cache."""
        return key, value

    def get_seq_length(self, *_: Any) -> int:
        """Return 0; positions are given."""
        return 0

    @property
    def present(self) -> list[tuple[Any, Any]]:
        """The cache after the run, layer by layer."""
        if len(self._present) != len(self._past):
            raise ExportError(
                "The model's attention cannot be exported with a cache.",
                hint="Text generation is for models like GPT-2, Llama, Mistral and Qwen2.",
            )
        return [self._present[layer] for layer in range(len(self._past))]

    def attend(self, layer: int, query: Any, key: Any, value: Any, **options: float) -> Any:
        """Attend over past and new tokens; all tensors are (rows, heads, tokens, size)."""
        import torch

        rows, heads, tokens, size = query.shape
        past_key, past_value = self._past[layer]

        def flat(one: Any) -> Any:
            return one.transpose(1, 2).reshape(rows, tokens, -1)

        answer, present_key, present_value = torch.onnx.ops.symbolic_multi_out(
            _OPERATOR,
            (
                *(flat(query), flat(key), flat(value), past_key, past_value),
                *(self._lengths - 1, self._longest),
                *(None for _ in range(_UNUSED_OPERANDS)),
                self._new_lengths,
            ),
            {"num_heads": heads, "kv_num_heads": key.shape[1], **options},
            dtypes=(query.dtype, past_key.dtype, past_value.dtype),
            shapes=((rows, tokens, heads * size), past_key.shape, past_value.shape),
            version=1,
        )
        self._present[layer] = (present_key, present_value)
        return answer.reshape(rows, tokens, heads, size)


def export_cached_graph(model: Any, *, max_tokens: int) -> onnx_ir.Model:
    """Trace a decoder with its cache as input and output, all sizes varying.

    The graph's logits are those of each row's last new token. The model's attention implementation
    is another one afterwards: it cannot answer any more.

    Args:
        model: a causal language model in eval mode, float32.
        max_tokens: longest sequence.

    Raises:
        ExportError: the exporter cannot trace or convert this model.
    """
    import torch

    config = model.config.get_text_config()
    layers = int(config.num_hidden_layers)
    heads = int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
    size = int(
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    rows, tokens, capacity = _EXAMPLE.values()
    int32 = torch.int32
    example = (
        torch.ones(rows, tokens, dtype=torch.int64),
        torch.full((rows,), tokens, dtype=int32),
        torch.full((rows,), tokens, dtype=int32),
        torch.tensor(tokens, dtype=int32),
        [
            tuple(torch.zeros(rows, heads, capacity, size) for _ in ("key", "value"))
            for _ in range(layers)
        ],
    )
    row = torch.export.Dim("rows", min=1, max=65_536)
    token = torch.export.Dim("tokens", min=1, max=max_tokens)
    place = torch.export.Dim("capacity", min=1, max=2**30)
    cache_shape = {0: row, 2: place}
    shapes: tuple[Any, ...] = (
        *({0: row, 1: token}, {0: row}, {0: row}, {}),
        [(cache_shape, cache_shape) for _ in range(layers)],
    )
    pairs = [(kind, layer) for layer in range(layers) for kind in ("key", "value")]
    try:
        with torch.inference_mode(), _attention(model):
            program = torch.export.export(
                _decoder(model, max_tokens), example, dynamic_shapes=shapes, strict=False
            )
            converted = torch.onnx.export(
                program,
                input_names=[*INPUTS, *(f"past_{kind}_{layer}" for kind, layer in pairs)],
                output_names=[OUTPUT, *(f"present_{kind}_{layer}" for kind, layer in pairs)],
                dynamo=True,
                verbose=False,
            )
    except ExportError:
        raise
    # torch.export and the converter raise dozens of types.
    except Exception as error:
        first = (str(error).strip().splitlines() or ["no message"])[0][:300]
        raise ExportError(
            f"The exporter failed on {type(model).__name__}: {type(error).__name__}: {first}",
            hint="Text generation is for models like GPT-2, Llama, Mistral and Qwen2.",
        ) from error
    graph: onnx_ir.Model = converted.model
    return graph


@contextlib.contextmanager
def _attention(model: Any) -> Iterator[None]:
    """Have the model's layers call the cache that they are given."""
    from transformers import AttentionInterface

    AttentionInterface.register(_ATTENTION, _attend)
    model.set_attn_implementation(_ATTENTION)
    yield


_CACHES: list[_LayersCache] = []
# transformers' attention functions are not given the cache; while a graph is traced, it is here.


def _attend(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[Any, None]:
    """Attend as transformers' layers ask for it."""
    unknown = {name for name in ("s_aux", "position_bias") if others.get(name) is not None}
    if attention_mask is not None or unknown:
        raise ExportError("The model's attention has a mask or a bias of its own.")
    options: dict[str, float] = {"scale": scaling or query.shape[-1] ** -0.5}
    if sliding_window:
        options["local_window_size"] = int(sliding_window)
    if softcap:
        options["softcap"] = float(softcap)
    return _CACHES[-1].attend(module.layer_idx, query, key, value, **options), None


def _decoder(model: Any, max_tokens: int) -> Any:
    """Return the model as a module with a flat cache and the logits of each row's last token."""
    import torch

    class Decoder(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(
            self, input_ids: Any, lengths: Any, new_lengths: Any, longest: Any, past: Any
        ) -> Any:
            rows, tokens = input_ids.shape
            places = torch.arange(tokens)[None] + (lengths - new_lengths).to(torch.int64)[:, None]
            last = (new_lengths.to(torch.int64) - 1).clamp(min=0)
            cache = _LayersCache(past, lengths, new_lengths, longest)

            def keep_last(_: Any, values: tuple[Any, ...]) -> tuple[Any, ...]:
                return (values[0][torch.arange(rows), last][:, None],)

            # Everything that the model does to its logits stays, only on fewer tokens.
            hook = self.model.get_output_embeddings().register_forward_pre_hook(keep_last)
            _CACHES.append(cache)
            try:
                found = self.model(
                    input_ids=input_ids,
                    # What fills a row up has no place of its own.
                    position_ids=places.clamp(max=max_tokens - 1),
                    past_key_values=cache,
                    use_cache=True,
                )
            finally:
                _CACHES.pop()
                hook.remove()
            return found.logits[:, 0], cache.present

    return Decoder()
