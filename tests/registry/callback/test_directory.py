from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    GPT2Config,
    GPT2LMHeadModel,
    TrainingArguments,
)

from registry.callback.directory import (
    find_checkpoint,
    link_checkpoint,
    link_training_state,
    write_model,
)
from registry.errors import ExportError, NotFoundError, StorageError
from tests.models import tiny_bert, write_bert_tokenizer


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("m") / "base", hidden_size=16, layers=1)


@pytest.fixture
def arguments(tmp_path: Path) -> TrainingArguments:
    return TrainingArguments(output_dir=str(tmp_path / "out"), use_cpu=True, report_to="none")


def names(directory: Path) -> set[str]:
    return {p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file()}


def test_the_directory_loads_and_answers_alike(
    base: Path, arguments: TrainingArguments, tmp_path: Path
) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(base).eval()
    tokenizer = AutoTokenizer.from_pretrained(base)
    out = write_model(model, tmp_path / "m", args=arguments, processor=tokenizer)
    assert names(out) == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "training_args.json",
    }
    row = AutoTokenizer.from_pretrained(out)("a good film", return_tensors="pt")
    again = AutoModelForSequenceClassification.from_pretrained(out).eval()
    with torch.no_grad():
        assert torch.equal(model(**row).logits, again(**row).logits)


def test_the_collators_tokenizer_is_saved_when_there_is_no_processor(
    base: Path, arguments: TrainingArguments, tmp_path: Path
) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(base)
    collator = DataCollatorWithPadding(AutoTokenizer.from_pretrained(base))
    out = write_model(model, tmp_path / "m", args=arguments, collator=collator)
    assert "tokenizer.json" in names(out)


def test_a_generation_config_is_kept(arguments: TrainingArguments, tmp_path: Path) -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=1))
    model.generation_config.max_new_tokens = 5
    out = write_model(model, tmp_path / "m", args=arguments)
    assert json.loads((out / "generation_config.json").read_text())["max_new_tokens"] == 5


def test_a_plain_module_keeps_its_weights(arguments: TrainingArguments, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model = torch.nn.Linear(2, 3)
    out = write_model(torch.nn.DataParallel(model), tmp_path / "m", args=arguments)
    assert torch.equal(load_file(out / "model.safetensors")["weight"], model.weight)


# peft still asks transformers by the older name.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_an_adapter_stays_an_adapter(
    base: Path, arguments: TrainingArguments, tmp_path: Path
) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model

    from registry.callback.metadata import model_facts

    model = AutoModelForSequenceClassification.from_pretrained(base)
    adapted = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=2))
    out = write_model(adapted, tmp_path / "m", args=arguments)
    assert {"adapter_config.json", "adapter_model.safetensors"} <= names(out)
    assert "model.safetensors" not in names(out)
    facts = model_facts(adapted)
    assert facts["peft"] is True
    assert facts["task"] == "text-classification"
    assert facts["base_model"] == str(base)
    fresh = AutoModelForSequenceClassification.from_pretrained(base)
    assert PeftModel.from_pretrained(fresh, out).active_adapter == "default"


def test_sentence_transformers_keep_their_modules(
    arguments: TrainingArguments, tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    from registry.callback.metadata import model_facts

    model = sentence_model(tmp_path / "bare")
    out = write_model(model, tmp_path / "m", args=arguments)
    assert {"modules.json", "1_Pooling/config.json", "model.safetensors"} <= names(out)
    assert model_facts(model)["task"] == "feature-extraction"
    again = SentenceTransformer(str(out), device="cpu")
    assert (again.encode("good film") == model.encode("good film")).all()


def sentence_model(directory: Path) -> Any:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel

    size = write_bert_tokenizer(directory)
    config = BertConfig(
        vocab_size=size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(directory)
    transformer = Transformer(str(directory))
    return SentenceTransformer(modules=[transformer, Pooling(16)], device="cpu")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """What the Trainer leaves in checkpoint-N, with small stand-ins for the large files."""
    root = tmp_path / "checkpoint-8"
    (root / "1_Pooling").mkdir(parents=True)
    for name in (
        "model.safetensors", "config.json", "tokenizer.json", "1_Pooling/config.json",
        "optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state.pth", "rng_state_0.pth",
        "trainer_state.json", "training_args.bin", "pytorch_model.bin",
    ):  # fmt: skip
        (root / name).write_text(name)
    return root


def test_a_checkpoint_without_what_only_resuming_needs(
    checkpoint: Path, arguments: TrainingArguments, tmp_path: Path
) -> None:
    out = link_checkpoint(checkpoint, tmp_path / "m", args=arguments)
    assert names(out) == {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "1_Pooling/config.json",
        "training_args.json",
    }
    inode = (checkpoint / "model.safetensors").stat().st_ino
    assert (out / "model.safetensors").stat().st_ino == inode


def test_a_rotated_checkpoint_stays_readable(
    checkpoint: Path, arguments: TrainingArguments, tmp_path: Path
) -> None:
    out = link_checkpoint(checkpoint, tmp_path / "m", args=arguments)
    (checkpoint / "model.safetensors").unlink()
    assert (out / "model.safetensors").read_text() == "model.safetensors"


def test_the_training_state_alone(checkpoint: Path, tmp_path: Path) -> None:
    out = link_training_state(checkpoint, tmp_path / "s")
    assert names(out) == {
        "optimizer.pt",
        "scheduler.pt",
        "scaler.pt",
        "rng_state.pth",
        "rng_state_0.pth",
        "trainer_state.json",
    }


def test_the_checkpoint_of_the_newest_trial_is_found(tmp_path: Path) -> None:
    assert find_checkpoint(tmp_path, 4) == tmp_path / "checkpoint-4"
    for age, name in enumerate(("run-1/checkpoint-4", "checkpoint-4", "run-0/checkpoint-4")):
        (tmp_path / name).mkdir(parents=True)
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    assert find_checkpoint(tmp_path, 4) == tmp_path / "run-1" / "checkpoint-4"
    assert find_checkpoint(tmp_path, 8) == tmp_path / "checkpoint-8"


def test_missing_parts_are_errors(
    checkpoint: Path, arguments: TrainingArguments, tmp_path: Path
) -> None:
    with pytest.raises(NotFoundError, match="no checkpoint"):
        link_checkpoint(tmp_path / "nowhere", tmp_path / "m", args=arguments)
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(ExportError, match="no safetensors weights"):
        link_checkpoint(checkpoint, tmp_path / "m", args=arguments)
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFoundError, match="no optimizer"):
        link_training_state(tmp_path / "empty", tmp_path / "s")


def test_a_directory_that_cannot_be_made(
    base: Path, arguments: TrainingArguments, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    model = AutoModelForSequenceClassification.from_pretrained(base)
    with pytest.raises(StorageError, match="could not be written"):
        write_model(model, tmp_path / "file" / "m", args=arguments)
