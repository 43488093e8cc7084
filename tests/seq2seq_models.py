"""Tiny T5-, BART- and mBART-shaped models, their tokenizers trained on the spot.

The weights are random but seeded, and spread out so that different texts get different answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.models import WORDS

LANGUAGES = ("en_XX", "de_DE", "ro_RO")
_PIECES = 260
_WIDTH = 32


def corpus(lines: int = 400, seed: int = 5) -> Iterator[str]:
    """Sentences of the words of all tiny models, always the same."""
    rng = np.random.default_rng(seed)
    for _ in range(lines):
        yield " ".join(rng.choice(WORDS, rng.integers(2, 14))) + str(rng.choice([".", "!", ""]))


def write_t5_tokenizer(directory: Path, *, max_length: int = 64) -> int:
    """Train and write a Unigram tokenizer as T5 has it; returns the size of its vocabulary."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=_PIECES,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.post_processor = TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
    )
    fast.save_pretrained(directory)
    return len(fast)


def write_bart_tokenizer(
    directory: Path, *, max_length: int = 64, languages: tuple[str, ...] = ()
) -> int:
    """Train and write a byte-level BPE tokenizer as BART has it, or with language codes as mBART.

    Returns the size of its vocabulary.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2 * _PIECES,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_special_tokens([AddedToken(code, special=True) for code in languages])
    first = languages[0] if languages else "<s>"
    tokens = [(name, tokenizer.token_to_id(name)) for name in (first, "</s>")]
    tokenizer.post_processor = TemplateProcessing(
        single=f"{first} $A </s>", pair=f"{first} $A $B </s>", special_tokens=tokens
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        **({"src_lang": first, "additional_special_tokens": list(languages)} if languages else {}),
    )
    fast.save_pretrained(directory)
    return len(fast)


def tiny_t5(directory: Path, seed: int = 0, *, max_length: int = 64, **generation: Any) -> Path:
    """Write a small random T5 with prefixes for its tasks, as the published ones have them."""
    from transformers import T5Config

    directory.mkdir(parents=True, exist_ok=True)
    config = T5Config(
        vocab_size=write_t5_tokenizer(directory, max_length=max_length),
        d_model=_WIDTH,
        d_kv=8,
        d_ff=2 * _WIDTH,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
        task_specific_params={
            "summarization": {
                "prefix": "summarize: ",
                "num_beams": 3,
                "length_penalty": 2.0,
                "min_length": 4,
                "max_length": 24,
                "no_repeat_ngram_size": 3,
                "early_stopping": True,
            },
            "translation_en_to_de": {
                "prefix": "translate English to German: ",
                "num_beams": 2,
                "max_length": 20,
                "early_stopping": True,
            },
            "translation_en_to_ro": {"prefix": "translate English to Romanian: "},
        },
    )
    return _write(directory, "T5ForConditionalGeneration", config, seed, generation)


def tiny_bart(directory: Path, seed: int = 0, *, max_length: int = 64, **generation: Any) -> Path:
    """Write a small random BART, for summaries by its parameters."""
    from transformers import BartConfig

    directory.mkdir(parents=True, exist_ok=True)
    vocabulary = write_bart_tokenizer(directory, max_length=max_length)
    config = BartConfig(
        vocab_size=vocabulary,
        **_bart_sizes(max_length),
        task_specific_params={"summarization": {"num_beams": 4, "max_length": 20, "min_length": 5}},
    )
    return _write(directory, "BartForConditionalGeneration", config, seed, generation)


def tiny_mbart(directory: Path, seed: int = 0, *, max_length: int = 64, **generation: Any) -> Path:
    """Write a small random mBART for three languages."""
    from transformers import MBartConfig

    directory.mkdir(parents=True, exist_ok=True)
    vocabulary = write_bart_tokenizer(directory, max_length=max_length, languages=LANGUAGES)
    config = MBartConfig(vocab_size=vocabulary, **_bart_sizes(max_length))
    return _write(directory, "MBartForConditionalGeneration", config, seed, generation)


def _bart_sizes(max_length: int) -> dict[str, Any]:
    return {
        "d_model": _WIDTH,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 2 * _WIDTH,
        "decoder_ffn_dim": 2 * _WIDTH,
        "max_position_embeddings": max_length,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
        "init_std": 0.2,
    }


def _write(
    directory: Path, architecture: str, config: Any, seed: int, generation: dict[str, Any]
) -> Path:
    import torch
    import transformers

    state = torch.random.get_rng_state()
    try:
        torch.manual_seed(seed)
        model = getattr(transformers, architecture)(config).eval()
        _spread(model)
    finally:
        torch.random.set_rng_state(state)
    model.generation_config.update(**generation)
    model.save_pretrained(directory)
    return directory


def _spread(model: Any) -> None:
    """Let an answer depend on its source, and end now and then."""
    import torch

    end = model.config.eos_token_id
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "EncDecAttention" in name or "encoder_attn." in name:
                parameter.mul_(2)
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias[0, end] = 2.5
        else:
            model.lm_head.weight[end].mul_(1.5)
