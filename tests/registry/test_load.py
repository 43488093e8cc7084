from __future__ import annotations

import json
from pathlib import Path

import pytest

from registry.config import Settings
from registry.errors import UnsafeContentError
from registry.load import load


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(cache_dir=tmp_path / "cache", data_dir=tmp_path / "data")


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("model")
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def test_a_model_comes_back_from_the_snapshot(model_dir: Path, settings: Settings) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    model = load(str(model_dir), AutoModelForSequenceClassification, settings=settings)
    original = AutoModelForSequenceClassification.from_pretrained(str(model_dir))
    assert str(settings.cache_dir) in model.config.name_or_path
    for ours, theirs in zip(model.parameters(), original.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert load(str(model_dir), AutoConfig, settings=settings).hidden_size == 16


def test_anything_that_takes_a_path_is_a_loader(model_dir: Path, settings: Settings) -> None:
    assert load(str(model_dir), Path, settings=settings).joinpath("config.json").is_file()


def test_remote_code_is_refused_before_the_loader_sees_it(
    model_dir: Path, settings: Settings, tmp_path: Path
) -> None:
    evil = tmp_path / "evil"
    evil.mkdir()
    config = json.loads((model_dir / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "modeling.Evil"}
    (evil / "config.json").write_text(json.dumps(config))
    (evil / "model.safetensors").write_bytes((model_dir / "model.safetensors").read_bytes())
    with pytest.raises(UnsafeContentError, match="auto_map"):
        load(str(evil), pytest.fail, settings=settings)
