"""Tiny real models that hear or see, made on the spot as the Trainer leaves them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TOKENS = ("<pad>", "<s>", "</s>", "<unk>", "|", *"ETAOINSHRDLU'")
RATE = 16_000
_SHAPE = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": (8, 8, 8),
    "conv_kernel": (10, 8, 4),
    "conv_stride": (5, 8, 8),
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "num_feat_extract_layers": 3,
    "mask_time_prob": 0.0,
    "initializer_range": 0.5,
}


def tiny_ctc(directory: Path, seed: int = 0, *, norm: str = "group", delimiter: str = " ") -> Path:
    """Write a small random Wav2Vec2 that spells, with its feature extractor and tokenizer."""
    from transformers import (
        Wav2Vec2Config,
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForCTC,
    )

    directory.mkdir(parents=True, exist_ok=True)
    vocabulary = directory / "vocab.json"
    vocabulary.write_text(json.dumps({token: index for index, token in enumerate(TOKENS)}))
    Wav2Vec2CTCTokenizer(str(vocabulary), replace_word_delimiter_char=delimiter).save_pretrained(
        directory
    )
    Wav2Vec2FeatureExtractor(return_attention_mask=norm == "layer").save_pretrained(directory)
    config = Wav2Vec2Config(
        vocab_size=len(TOKENS),
        feat_extract_norm=norm,
        do_stable_layer_norm=norm == "layer",
        pad_token_id=0,
        **_SHAPE,
    )
    return _write(directory, Wav2Vec2ForCTC, config, seed)


def tiny_hubert(
    directory: Path, labels: Sequence[str] = ("yes", "no", "up"), seed: int = 1
) -> Path:
    """Write a small random HuBERT that classifies waveforms."""
    from transformers import HubertConfig, HubertForSequenceClassification, Wav2Vec2FeatureExtractor

    Wav2Vec2FeatureExtractor().save_pretrained(directory)
    config = HubertConfig(id2label=dict(enumerate(labels)), **_SHAPE)
    return _write(directory, HubertForSequenceClassification, config, seed)


def tiny_vit(directory: Path, labels: Sequence[str] = ("cat", "dog", "owl"), seed: int = 2) -> Path:
    """Write a small random ViT for images of 32 by 32 pixels."""
    from transformers import ViTConfig, ViTForImageClassification

    _write_processor(directory, "ViT", size={"height": 32, "width": 32}, resample=2)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
        initializer_range=0.5,
        id2label=dict(enumerate(labels)),
    )
    return _write(directory, ViTForImageClassification, config, seed)


def tiny_resnet(directory: Path, labels: int = 7, seed: int = 3) -> Path:
    """Write a small random ResNet, with a processor that resizes and crops as ConvNeXt's does."""
    from transformers import ResNetConfig, ResNetForImageClassification

    _write_processor(directory, "ConvNext", size={"shortest_edge": 40}, crop_pct=0.8, resample=3)
    config = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        layer_type="basic",
        num_labels=labels,
    )
    return _write(directory, ResNetForImageClassification, config, seed)


def _write_processor(directory: Path, kind: str, **settings: Any) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    document = {
        "image_processor_type": f"{kind}ImageProcessor",
        "do_resize": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.45, 0.4],
        "image_std": [0.5, 0.3, 0.25],
        **settings,
    }
    (directory / "preprocessor_config.json").write_text(json.dumps(document))


def _write(directory: Path, kind: Any, config: Any, seed: int) -> Path:
    import torch

    state = torch.random.get_rng_state()
    try:
        torch.manual_seed(seed)
        kind(config).eval().save_pretrained(directory)
    finally:
        torch.random.set_rng_state(state)
    return directory
