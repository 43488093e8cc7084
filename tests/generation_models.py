"""Tiny decoders with a byte-level tokenizer, for every test that lets a text grow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from registry import Export
from tests.exports import export_directory
from tests.models import WORDS

CONTEXT = 96
END = "<|end|>"
_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 48,
    "max_position_embeddings": CONTEXT,
}
_CONFIGS: dict[str, dict[str, Any]] = {
    "GPT2LMHeadModel": {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": CONTEXT},
    "LlamaForCausalLM": _SIZES,
    "MistralForCausalLM": {**_SIZES, "sliding_window": 12, "tie_word_embeddings": True},
    "Qwen2ForCausalLM": _SIZES,
}


def tiny_decoder(
    path: Path, architecture: str = "GPT2LMHeadModel", *, seed: int = 5, context: int = CONTEXT
) -> Path:
    """Save a decoder with random weights, large enough that its answers differ."""
    import torch
    import transformers

    size = _save_tokenizer(path, context)
    model_class = getattr(transformers, architecture)
    torch.manual_seed(seed)
    sizes = {
        name: context if value == CONTEXT else value
        for name, value in _CONFIGS[architecture].items()
    }
    config = model_class.config_class(
        **sizes,
        vocab_size=size,
        bos_token_id=0,
        eos_token_id=0,
        initializer_range=0.3,
    )
    model_class(config).save_pretrained(path)
    return path


def _save_tokenizer(path: Path, context: int) -> int:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=360,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 3, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, model_max_length=context
    )
    fast.save_pretrained(path)
    return len(fast)


class TinyDecoders:
    """Decoders and their exports by architecture, made when first asked for, in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[str, tuple[Path, Export]] = {}

    def get(
        self, architecture: str = "GPT2LMHeadModel", *, context: int = CONTEXT
    ) -> tuple[Path, Export]:
        """Return the model as it was logged, and its export; do not change them."""
        name = f"{architecture}-{context}"
        if name not in self._made:
            model = tiny_decoder(self._folder / name, architecture, context=context)
            self._made[name] = model, export_directory(model, self._folder / "exports")
        return self._made[name]
