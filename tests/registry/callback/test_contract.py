"""The documented contract, with the real Trainer and the real SDK against a real server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from registry.naming import metric_value
from tests.backend_process import BackendProcess
from tests.registry.callback.conftest import flow

TOKEN = "hf_ThisTokenMustNeverLeave0000"


def versions(api: Any, project: str, collection: str, kind: str = "model") -> list[Any]:
    """All versions of a collection, oldest first."""
    found = api.artifacts(kind, f"local/{project}/{collection}")
    return sorted(found, key=lambda artifact: int(artifact.version[1:]))


def collections(api: Any, project: str) -> set[str]:
    return {c.name for c in api.artifact_type("model", f"local/{project}").collections()}


def test_the_documented_name_holds_the_best_model(
    contract: dict[str, Any], api: Any, tmp_path: Path
) -> None:
    documented = contract["documented"]
    assert [item["name"] for item in documented["logged"]] == [
        "local/huggingface/run-bert-base-high-lr:v0"
    ]
    assert not documented["leftovers"]
    artifact = api.artifact("local/huggingface/run-bert-base-high-lr:v0")
    assert artifact.type == "model"
    assert set(artifact.aliases) == {"latest", "final"}
    assert artifact.logged_by().id == documented["run"]
    metadata = artifact.metadata
    assert (metadata["step"], metadata["selected"]) == (8, "best")
    assert metric_value(metadata, "eval/f1") == 0.9
    assert metadata["eval/broken"] is None
    assert metadata["task"] == "text-classification"
    assert metadata["labels"] == ["negative", "neutral", "positive"]

    root = Path(artifact.download(str(tmp_path / "model")))
    assert {p.name for p in root.iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "training_args.json",
    }
    assert TOKEN not in "".join(p.read_text("latin-1") for p in root.iterdir())
    assert json.loads((root / "training_args.json").read_text())["num_train_epochs"] == 3
    assert AutoTokenizer.from_pretrained(root)("good").input_ids
    model = AutoModelForSequenceClassification.from_pretrained(root).eval()
    with torch.no_grad():
        row = {"input_ids": [[2, 8, 9, 3]], "attention_mask": [[1] * 4]}
        logits = model(**{key: torch.tensor(value) for key, value in row.items()}).logits[0]
    assert logits.tolist() == pytest.approx(documented["logits"], abs=1e-5)


def test_load_gives_the_model_back_and_records_the_use(
    contract: dict[str, Any], training_backend: BackendProcess, api: Any, tmp_path: Path
) -> None:
    name = contract["documented"]["logged"][0]["name"]
    loaded = flow(
        training_backend, "load.py", tmp_path, name, RUNPORT_CACHE_DIR=str(tmp_path / "store")
    )
    assert loaded["logits"] == pytest.approx(contract["documented"]["logits"], abs=1e-5)
    run = api.run(loaded["run"])
    assert [artifact.qualified_name for artifact in run.used_artifacts()] == [name]


def test_the_stock_callback_logged_metrics_and_no_model(contract: dict[str, Any], api: Any) -> None:
    assert collections(api, "huggingface") == {"run-bert-base-high-lr"}
    run = api.run(f"local/huggingface/{contract['documented']['run']}")
    assert run.name == "bert-base-high-lr"
    assert run.summary["eval/f1"] == 0.7
    assert run.config["num_train_epochs"] == 3
    assert TOKEN not in json.dumps(run.config, default=str)


def test_a_run_of_ones_own_is_respected(contract: dict[str, Any], api: Any) -> None:
    manual = contract["manual_run"]
    first, second = manual["logged"]
    run = api.run(f"local/notebook/{manual['runs'][0]}")
    assert (run.name, set(run.tags), run.group) == ("by hand", {"a", "b"}, "g")
    assert first["name"] == "local/notebook/run-by_hand:v0"
    metadata = api.artifact(first["name"]).metadata
    assert metadata["run_name"] == "by hand"
    assert metric_value(metadata, "eval/f1") == 0.5  # from the evaluation after training
    # After wandb.finish(), the second training has a run of its own.
    assert manual["runs"][0] != manual["runs"][1]
    assert second["name"].startswith("local/not-this-one/run-")


def test_each_checkpoint_is_a_version(contract: dict[str, Any], api: Any) -> None:
    logged = contract["checkpoints"]["logged"]
    models = [item for item in logged if item["type"] == "model"]
    assert [item["step"] for item in models] == [4, 8, 12, 12]
    found = versions(api, "checkpoints", "run-each")
    assert [a.metadata["step"] for a in found][:3] == [4, 8, 12]
    assert [metric_value(a.metadata, "eval/f1") for a in found][:3] == [0.5, 0.9, 0.7]
    assert "checkpoint_global_step_4" in found[0].aliases
    assert "epoch_1.0" in found[0].aliases
    for artifact in found:
        names = {file.name for file in artifact.files()}
        assert "model.safetensors" in names
        assert not [name for name in names if name.endswith((".pt", ".pth", ".bin"))]


def test_the_end_of_training_is_marked_in_the_same_collection(
    contract: dict[str, Any], api: Any
) -> None:
    found = versions(api, "checkpoints", "run-each")
    (final,) = [a for a in found if "final" in a.aliases]
    assert final.metadata["step"] == 16  # the resumed training's end
    assert "latest" in final.aliases
    assert not [a for a in found if "best" in a.aliases]
    (resumed,) = contract["checkpoints"]["resumed"]
    assert resumed["name"] == f"local/checkpoints/run-each:{final.version}"


def test_the_training_state_is_an_artifact_of_its_own(contract: dict[str, Any], api: Any) -> None:
    found = versions(api, "checkpoints", "run-each-training-state", "training-state")
    assert len(found) == 3
    names = {file.name for file in found[0].files()}
    assert {"optimizer.pt", "scheduler.pt", "trainer_state.json"} <= names
    assert "model.safetensors" not in names


def test_every_trial_of_a_search_has_its_run_and_model(contract: dict[str, Any], api: Any) -> None:
    first, second = contract["search"]["logged"]
    assert first["collection"] != second["collection"]
    assert {first["collection"], second["collection"]} == collections(api, "search")
    assert len(list(api.runs("local/search"))) == 2


def test_without_report_to_the_callback_starts_the_run(contract: dict[str, Any], api: Any) -> None:
    logged, again = contract["alone"]["logged"]
    assert logged["name"] == "local/alone/run-no_metrics_of_mine:v0"
    assert again["name"] == "local/alone/run-no_metrics_of_mine:v1"
    assert api.artifact(logged["name"]).metadata["run_name"] == "no metrics/of mine"
    run = api.run(f"local/alone/{contract['alone']['run']}")
    assert run.name == "no metrics/of mine"
    assert run.summary["eval/f1"] == 0.7
    assert run.config["num_train_epochs"] == 3
    assert TOKEN not in json.dumps(run.config, default=str)


def test_a_model_that_cannot_be_written_does_not_cost_the_training(
    contract: dict[str, Any],
) -> None:
    found = contract["nowhere_to_write"]
    assert (found["steps"], found["logged"], found["kept"]) == (12, 0, None)
    assert found["code"] == "storage"
    assert "nowhere/out/runport" in found["error"]
    assert "checkpoints are untouched" in found["hint"]


def test_false_logs_no_model_and_keeps_the_metrics(contract: dict[str, Any], api: Any) -> None:
    assert contract["not_wanted"]["logged"] == []
    (run,) = api.runs("local/unwanted")
    assert run.summary["eval/f1"] == 0.7
    assert not list(run.logged_artifacts())


def test_wandb_disabled_logs_nothing_at_all(contract: dict[str, Any], api: Any) -> None:
    off = contract["switched_off"]
    assert (off["logged"], off["steps"], off["run"]) == ([], 12, False)
    assert "off" not in {project.name for project in api.projects("local")}


def test_sentence_transformers_and_adapters(
    training_backend: BackendProcess, api: Any, tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    logged = flow(training_backend, "other_trainers.py", tmp_path / "home")
    (sentences,) = logged["sentences"]
    assert sentences["name"] == "local/others/run-sentences:v0"
    artifact = api.artifact(sentences["name"])
    assert artifact.metadata["task"] == "feature-extraction"
    root = Path(artifact.download(str(tmp_path / "sentences")))
    assert (root / "modules.json").is_file()
    assert SentenceTransformer(str(root), device="cpu").encode("good film").shape == (16,)

    (adapter,) = logged["adapter"]
    artifact = api.artifact(adapter["name"])
    assert artifact.metadata["peft"] is True
    assert artifact.metadata["base_model"].endswith("base")
    names = {file.name for file in artifact.files()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= names
    assert "model.safetensors" not in names
