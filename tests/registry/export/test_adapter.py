"""A real LoRA adapter, merged into its base model by the exporting child."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForSequenceClassification, BertModel

from registry.config import Settings
from registry.errors import ExportError, RegistryError, UnsafeContentError
from registry.export import export_model, load_torch_model, read_source
from registry.load import load
from registry.pull import pull
from registry.pulled import PulledVersion
from tests.models import tiny_bert

# peft asks transformers by a name that this transformers has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")

ROW = torch.tensor([[2, 7, 9, 11, 3]])


def trained(base: Path, directory: Path, seed: int = 1, **options: Any) -> Path:
    """Write an adapter whose weights are not zero, as a training leaves it."""
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
    adapted = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=4, **options))
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                parameter.normal_(std=0.2)
    adapted.save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("base"), labels=("bad", "fine", "good"))


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(base, tmp_path_factory.mktemp("adapter"))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(cache_dir=tmp_path / "cache", data_dir=tmp_path / "data")


def pulled(adapter: Path, base: Path, settings: Settings) -> PulledVersion:
    return pull(str(adapter), settings=settings, base=str(base))


def expected(adapter: Path, base: Path) -> np.ndarray[Any, Any]:
    """What the adapter answers on its base, without any merging."""
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
    with torch.inference_mode():
        logits = PeftModel.from_pretrained(model, adapter).eval()(input_ids=ROW).logits
    return np.asarray(logits[0].numpy())


def test_the_export_answers_as_the_adapter_on_its_base(
    adapter: Path, base: Path, settings: Settings
) -> None:
    both = pulled(adapter, base, settings)
    exports_dir = settings.cache_dir / "exports"
    export = export_model(both.path, digest=both.digest, exports_dir=exports_dir, timeout_s=200)
    session = onnxruntime.InferenceSession(export.path / "model.onnx")
    feeds = {
        "input_ids": ROW.numpy(),
        "attention_mask": np.ones_like(ROW.numpy()),
        "token_type_ids": np.zeros_like(ROW.numpy()),
    }
    answer = session.run(["logits"], feeds)[0][0]
    assert answer == pytest.approx(expected(adapter, base), abs=1e-4)
    plain = AutoModelForSequenceClassification.from_pretrained(base)
    with torch.inference_mode():
        assert not np.allclose(answer, plain(input_ids=ROW).logits[0].numpy(), atol=0.05)
    assert export.report.passed
    assert export.report.tools["peft"]
    assert export.digest == both.digest
    assert json.loads((export.path / "config.json").read_text())["id2label"]["2"] == "good"
    assert (export.path / "tokenizer.json").is_file()
    again = export_model(both.path, digest=both.digest, exports_dir=exports_dir, timeout_s=1)
    assert again == export


@pytest.mark.parametrize("options", [{"use_dora": True}, {"use_rslora": True}])
def test_what_torch_would_serve_is_merged_too(
    base: Path, settings: Settings, tmp_path: Path, options: dict[str, Any]
) -> None:
    adapter = trained(base, tmp_path / "adapter", **options)
    source = read_source(pulled(adapter, base, settings).path)
    model, _ = load_torch_model(source, threads=1)
    with torch.inference_mode():
        logits = model(input_ids=ROW).logits[0].numpy()
    assert logits == pytest.approx(expected(adapter, base), abs=1e-4)
    assert type(model).__name__ == "BertForSequenceClassification"


def test_a_base_without_a_head_takes_the_adapters(
    base: Path, settings: Settings, tmp_path: Path
) -> None:
    bare = shutil.copytree(base, tmp_path / "bare")
    BertModel.from_pretrained(base).save_pretrained(bare)
    adapter = trained(bare, tmp_path / "adapter")
    shutil.copy(base / "config.json", adapter)  # as RunportCallback writes it
    source = read_source(pulled(adapter, bare, settings).path)
    model, _ = load_torch_model(source, threads=1)
    with torch.inference_mode():
        logits = model(input_ids=ROW).logits[0].numpy()
    assert logits == pytest.approx(expected(adapter, bare), abs=1e-4)


def test_load_gives_the_adapter_on_its_base(adapter: Path, base: Path, settings: Settings) -> None:
    model = load(
        str(adapter), AutoModelForSequenceClassification, settings=settings, base=str(base)
    )
    assert isinstance(model, PeftModel)
    with torch.inference_mode():
        logits = model.eval()(input_ids=ROW).logits[0].numpy()
        merged = model.merge_and_unload()(input_ids=ROW).logits[0].numpy()
    assert logits == pytest.approx(expected(adapter, base), abs=1e-5)
    assert merged == pytest.approx(logits, abs=1e-4)


def test_a_wrong_base_is_an_error_and_no_answer(
    adapter: Path, settings: Settings, tmp_path: Path
) -> None:
    other = tiny_bert(tmp_path / "other", hidden_size=16)
    source = read_source(pulled(adapter, other, settings).path)
    with pytest.raises(ExportError, match="does not fit"):
        load_torch_model(source, threads=1)


@pytest.mark.parametrize(
    ("setting", "value", "kind", "words"),
    [
        ("peft_type", "PROMPT_TUNING", ExportError, "PROMPT_TUNING"),
        ("init_lora_weights", "pissa", ExportError, "pissa"),
        ("megatron_config", {"a": 1}, UnsafeContentError, "megatron_config"),
        ("corda_config", {"cache_file": "/x.pt"}, UnsafeContentError, "corda_config"),
    ],
)
def test_settings_that_peft_should_not_see_are_refused(
    adapter: Path, base: Path, settings: Settings, tmp_path: Path,
    setting: str, value: object, kind: type[RegistryError], words: str,
) -> None:  # fmt: skip
    changed = shutil.copytree(adapter, tmp_path / "changed")
    path = changed / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), setting: value}))
    with pytest.raises(kind, match=words):
        read_source(pulled(changed, base, settings).path)
