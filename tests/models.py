"""Tiny real models made on the spot, for every test that needs a model directory.

Nothing is downloaded: the vocabulary is written here, the weights are random but seeded. Each
directory is what `Trainer.save_model` leaves: `config.json`, `model.safetensors`, `tokenizer.json`,
`tokenizer_config.json`.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WORDS = [
    "the",
    "a",
    "an",
    "of",
    "to",
    "in",
    "and",
    "or",
    "not",
    "is",
    "was",
    "it",
    "this",
    "that",
    "film",
    "movie",
    "plot",
    "actor",
    "scene",
    "music",
    "story",
    "good",
    "bad",
    "great",
    "awful",
    "fine",
    "dull",
    "slow",
    "fast",
    "long",
    "short",
    "loved",
    "hated",
    "enjoyed",
    "boring",
    "brilliant",
    "terrible",
    "wonderful",
    "very",
    "really",
    "quite",
    "never",
    "always",
    "what",
    "who",
    "why",
    "how",
    "one",
    "two",
    "three",
    "ten",
    "first",
    "last",
    "old",
    "new",
    "big",
    "small",
    "red",
    "green",
    "blue",
    "hot",
    "cold",
    "day",
    "night",
    "year",
    "time",
    "people",
    "world",
    "life",
    "house",
    "über",
    "café",
    "naïve",
    "東",
    "京",
    "привет",
]

SUFFIXES = tuple(f"##{part}" for part in ("s", "ed", "ing", "er", "ly", "ness", "un", "able"))


def wordpiece_vocabulary() -> dict[str, int]:
    """A small WordPiece vocabulary: special tokens, words, suffixes, single characters."""
    characters = list(string.ascii_lowercase + string.digits + string.punctuation)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *SUFFIXES, *characters]
    pieces += [f"##{character}" for character in string.ascii_lowercase + string.digits]
    return {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}


def write_bert_tokenizer(directory: Path, *, max_length: int = 64, lowercase: bool = True) -> int:
    """Write a fast BERT tokenizer made by `tokenizers`; returns the size of its vocabulary."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import BertTokenizerFast

    vocabulary = wordpiece_vocabulary()
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    fast = BertTokenizerFast(
        tokenizer_object=tokenizer,
        do_lower_case=lowercase,
        model_max_length=max_length,
        unk_token="[UNK]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        mask_token="[MASK]",
    )
    fast.save_pretrained(directory)
    return len(vocabulary)


def tiny_bert(
    directory: Path,
    labels: int | Sequence[str] = 3,
    seed: int = 0,
    *,
    problem_type: str | None = None,
    max_length: int = 64,
    hidden_size: int = 32,
    layers: int = 2,
) -> Path:
    """Write a small random BERT sequence classifier and its tokenizer into `directory`.

    The head is spread out over random inputs, so that different texts get different labels.

    Args:
        directory: made when missing.
        labels: how many labels (`LABEL_0`, …), or their names in order.
        seed: of the weights; two seeds give two different models.
        problem_type: as in the config: `single_label_classification`, `multi_label_classification`
            or `regression`; None leaves it unset.
        max_length: longest input in tokens, special tokens included.
        hidden_size: width; a multiple of 4.
        layers: depth.

    Returns:
        `directory`.
    """
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    directory.mkdir(parents=True, exist_ok=True)
    vocabulary_size = write_bert_tokenizer(directory, max_length=max_length)
    names = [f"LABEL_{i}" for i in range(labels)] if isinstance(labels, int) else list(labels)
    config = BertConfig(
        vocab_size=vocabulary_size,
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * hidden_size,
        max_position_embeddings=max_length,
        initializer_range=0.2,
        pad_token_id=0,
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
        problem_type=problem_type,
    )
    state = torch.random.get_rng_state()
    try:
        torch.manual_seed(seed)
        model = BertForSequenceClassification(config).eval()
        _spread(model)
    finally:
        torch.random.set_rng_state(state)
    model.save_pretrained(directory)
    return directory


def _spread(model: Any) -> None:
    """Centre and scale the head over random inputs: logits of mean 0 and deviation 2."""
    import torch

    with torch.no_grad():
        ids = torch.randint(5, model.config.vocab_size, (64, 12))
        ids[:, 0], ids[:, -1] = 2, 3

        def logits() -> torch.Tensor:
            found: torch.Tensor = model(input_ids=ids).logits
            return found.reshape(-1, found.shape[-1])

        scale = 2 / logits().std(dim=0)
        model.classifier.weight *= scale[:, None]
        model.classifier.bias *= scale
        model.classifier.bias -= logits().mean(dim=0)


def tiny_head(
    directory: Path,
    head: str,
    labels: Sequence[str] = (),
    seed: int = 0,
    *,
    max_length: int = 64,
    **settings: Any,
) -> Path:
    """Write a small random BERT with another head and its tokenizer into `directory`.

    Args:
        directory: made when missing.
        head: a transformers class, such as `BertForTokenClassification`.
        labels: names of its outputs, where it has labels.
        seed: of the weights.
        max_length: longest input in tokens, special tokens included.
        settings: further ones of its configuration.

    Returns:
        `directory`.
    """
    import torch
    import transformers

    directory.mkdir(parents=True, exist_ok=True)
    vocabulary_size = write_bert_tokenizer(directory, max_length=max_length)
    named = {"id2label": dict(enumerate(labels))} if labels else {}
    config = transformers.BertConfig(
        vocab_size=vocabulary_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=max_length,
        initializer_range=0.3,
        pad_token_id=0,
        **named,
        **settings,
    )
    state = torch.random.get_rng_state()
    try:
        torch.manual_seed(seed)
        model = getattr(transformers, head)(config).eval()
        if labels:
            _spread(model)
    finally:
        torch.random.set_rng_state(state)
    model.save_pretrained(directory)
    return directory
