"""Tiny classifiers of many families, each with its own tokenizer class trained on the spot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.models import WORDS

MAX_TOKENS = 64
LABELS = {0: "bad", 1: "fine", 2: "good"}

_SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}


@dataclass(frozen=True)
class Family:
    """An architecture and its tokenizer.

    Attributes:
        prefix: of the configuration's and the model's class, such as `Bert`.
        tokenizer: its class.
        sizes: what the configuration calls its sizes.
        offset: positions that are never used, as RoBERTa's family has them.
    """

    prefix: str
    tokenizer: str
    sizes: Mapping[str, Any] = field(default_factory=lambda: _SMALL)
    offset: int = 0


FAMILIES: Mapping[str, Family] = {
    "bert": Family("Bert", "BertTokenizer"),
    "distilbert": Family(
        "DistilBert",
        "DistilBertTokenizer",
        {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48},
    ),
    "roberta": Family("Roberta", "RobertaTokenizer", offset=2),
    "albert": Family("Albert", "AlbertTokenizer", {**_SMALL, "embedding_size": 16}),
    "electra": Family("Electra", "ElectraTokenizer", {**_SMALL, "embedding_size": 16}),
    "deberta-v2": Family(
        "DebertaV2",
        "DebertaV2Tokenizer",
        # As the published models have it: relative positions, content to position and back.
        {
            **_SMALL,
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_buckets": 16,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "position_biased_input": False,
        },
    ),
    "mpnet": Family("MPNet", "MPNetTokenizer", offset=2),
    "xlm-roberta": Family("XLMRoberta", "XLMRobertaTokenizer", offset=2),
}


def write_classifier(name: str, folder: Path) -> Path:
    """Write a classifier of the family `name` with random weights as `save_pretrained` does."""
    import torch
    import transformers

    family = FAMILIES[name]
    texts = [" ".join(WORDS[start : start + 7]) for start in range(len(WORDS))]
    tokenizer = getattr(transformers, family.tokenizer)().train_new_from_iterator(texts, 400)
    tokenizer.model_max_length = MAX_TOKENS
    config = getattr(transformers, f"{family.prefix}Config")(
        **family.sizes,
        vocab_size=len(tokenizer),
        max_position_embeddings=MAX_TOKENS + family.offset,
        pad_token_id=tokenizer.pad_token_id,
        id2label=LABELS,
        label2id={label: index for index, label in LABELS.items()},
    )
    torch.manual_seed(3)
    model = getattr(transformers, f"{family.prefix}ForSequenceClassification")(config)
    for parameter in model.parameters():
        # Fresh weights are so small that all texts get nearly the same scores.
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    model.eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
