"""The longest input that a text model takes; pure."""

from __future__ import annotations

from collections.abc import Mapping

DEFAULT_MAX_TOKENS = 512
"""For a model that declares no maximum; bounds time and memory of one input."""

_UNSET = 1_000_000
# transformers writes 1e30 as `model_max_length` when a tokenizer has no maximum.

_POSITION_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")

_OFFSET_TYPES = frozenset(
    "camembert data2vec-text ibert longformer luke mpnet roberta "
    "roberta-prelayernorm xlm-roberta xlm-roberta-xl xmod".split()
)
# Their position ids begin after the padding id, so that many rows of the table are never used.

_FIXED_PADDING = {"mpnet": 1}
# Whatever the config says: MPNet's embeddings take 1 for the padding id.


def max_tokens(
    config: Mapping[str, object],
    tokenizer_config: Mapping[str, object],
    trained: int | None = None,
) -> int:
    """Return the most tokens, special tokens included, that one input may have.

    It is the smallest of what the tokenizer declares (`model_max_length`), what the position table
    holds, and `trained`, what else cuts inputs to a length; `DEFAULT_MAX_TOKENS` when none says
    anything.
    """
    limits = [
        limit
        for limit in (
            _declared(tokenizer_config.get("model_max_length")),
            _positions(config),
            _declared(trained),
        )
        if limit is not None
    ]
    return min(limits, default=DEFAULT_MAX_TOKENS)


def _positions(config: Mapping[str, object]) -> int | None:
    for key in _POSITION_KEYS:
        limit = _declared(config.get(key))
        if limit is None:
            continue
        if config.get("model_type") in _OFFSET_TYPES:
            padding = _FIXED_PADDING.get(str(config.get("model_type")), config.get("pad_token_id"))
            limit -= (padding if isinstance(padding, int) else 1) + 1
        return limit if limit > 0 else None
    return None


def _declared(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 < value < _UNSET else None
