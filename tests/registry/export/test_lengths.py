import pytest

from registry.export.lengths import DEFAULT_MAX_TOKENS, max_tokens


@pytest.mark.parametrize(
    ("config", "tokenizer_config", "expected"),
    [
        ({"max_position_embeddings": 512}, {"model_max_length": 512}, 512),
        ({"max_position_embeddings": 512}, {"model_max_length": 128}, 128),
        ({"max_position_embeddings": 64}, {"model_max_length": 512}, 64),
        ({"max_position_embeddings": 512}, {"model_max_length": 1e30}, 512),
        ({"max_position_embeddings": 512}, {}, 512),
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, {}, 512),
        ({"model_type": "xlm-roberta", "max_position_embeddings": 514}, {}, 512),
        ({"model_type": "mpnet", "max_position_embeddings": 514, "pad_token_id": 3}, {}, 512),
        ({"n_positions": 1024}, {}, 1024),
        ({}, {}, DEFAULT_MAX_TOKENS),
        ({"max_position_embeddings": -1}, {"model_max_length": "long"}, DEFAULT_MAX_TOKENS),
        ({"max_position_embeddings": True}, {}, DEFAULT_MAX_TOKENS),
    ],
)
def test_the_smaller_limit_counts(
    config: dict[str, object], tokenizer_config: dict[str, object], expected: int
) -> None:
    assert max_tokens(config, tokenizer_config) == expected
