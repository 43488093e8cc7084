"""Whoever logged a model, its users find it by the name that they know, or hear why not."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

import registry
from registry.cli.inspect import command
from registry.errors import AmbiguousNameError, NotFoundError, UnsafeContentError
from registry.versions import ArtifactVersion
from tests.registry.corpus.conftest import Corpus


def resolve(corpus: Corpus, name: str) -> ArtifactVersion:
    return registry.resolve(name, settings=corpus.settings)


def pull(corpus: Corpus, name: str, base: str | None = None) -> registry.PulledVersion:
    return registry.pull(name, settings=corpus.settings, base=base)


@pytest.mark.parametrize(
    ("name", "collection", "version"),
    [
        # transformers' own callback of today, WANDB_LOG_MODEL=end
        ("run-stock-end", "model-stock-end", "v1"),
        ("stock-end", "model-stock-end", "v1"),
        ("model-stock-end:final_model", "model-stock-end", "v1"),
        # ... without a run_name: the artifact has the run's id, people know its display name
        ("run-shown-only", "model-{stock[unnamed]}", "v1"),
        ("shown-only", "model-{stock[unnamed]}", "v1"),
        ("run-{stock[unnamed]}", "model-{stock[unnamed]}", "v1"),
        # ... and WANDB_LOG_MODEL=checkpoint
        ("run-stock-steps", "model-stock-steps", "v4"),
        ("run-stock-steps:step(8)", "model-stock-steps", "v2"),
        ("run-stock-steps:checkpoint_global_step_4", "model-stock-steps", "v1"),
        ("run-stock-steps:best(eval/f1)", "model-stock-steps", "v2"),
        ("run-stock-steps:best(eval/eval_f1)", "model-stock-steps", "v2"),
        ("run-stock-steps:best(eval/loss)", "model-stock-steps", "v3"),
        ("run-stock-steps:best(eval/loss,max)", "model-stock-steps", "v1"),
        # sentence-transformers
        ("run-sentences:step(2)", "model-sentences", "v1"),
        # Runport's callback
        ("run-ours", "run-ours", "v1"),
        ("ours:v0", "run-ours", "v0"),
        ("wandb-artifact:///local/corpus/run-ours:final", "run-ours", "v1"),
        # run.log_model
        ("run-by-hand", "run-{by_hand[by-hand]}-my-model", "v0"),
        # transformers 4.26 to 4.41
        ("run-t430", "model-t430", "v0"),
        ("checkpoint-t441:step(500)", "checkpoint-t441", "v0"),
        ("checkpoint-t441:best(eval/f1)", "checkpoint-t441", "v1"),
    ],
)
def test_a_model_is_found_and_pulled_by_the_name_that_people_know(
    corpus: Corpus, name: str, collection: str, version: str
) -> None:
    pulled = pull(corpus, name.format(**corpus.runs))
    assert pulled.version.short_name == f"{collection.format(**corpus.runs)}:{version}"
    assert any(pulled.path.rglob("*.safetensors"))
    assert not any(path.suffix in {".bin", ".pt", ".pth"} for path in pulled.path.rglob("*"))


@pytest.mark.parametrize(
    ("name", "collection", "words"),
    [
        ("run-t44", "run-t44", "pytorch_model.bin"),  # transformers 4.2 to 4.4
        ("run-t425", "model-", "pytorch_model.bin"),  # transformers 4.5 to 4.25
        ("run-lit", "model-{lit}", "model.ckpt"),  # Lightning
        ("run-yolo", "run_{eras[yolo]}_model", "best.pt"),  # Ultralytics
        ("run-keras", "run_", "model.keras"),  # Keras
    ],
)
def test_pickles_are_found_by_name_and_refused_by_content(
    corpus: Corpus, name: str, collection: str, words: str
) -> None:
    found = resolve(corpus, name)
    assert found.collection.startswith(collection.format(**corpus.runs))
    with pytest.raises(UnsafeContentError, match=words) as caught:
        pull(corpus, name)
    assert "--all" in caught.value.hint


def test_a_checkpoint_of_lightning_gives_its_tensors_when_pickles_are_allowed(
    corpus: Corpus,
) -> None:
    settings = replace(corpus.settings, allow_pickle=True)
    pulled = registry.pull("run-lit", settings=settings)
    assert pulled.conversion is not None
    assert load_file(pulled.path / "model.safetensors").keys() == {"layer.weight", "layer.bias"}


@pytest.mark.parametrize(
    ("name", "trained"),
    [
        ("run-stock-end:v0", "model-stock-end:v1"),
        ("model-stock-steps:base_model", "model-stock-steps:v4"),
        ("run-sentences:v0", "model-sentences:v"),
    ],
)
def test_a_stub_names_the_version_with_the_weights(corpus: Corpus, name: str, trained: str) -> None:
    with pytest.raises(NotFoundError, match="architecture stub") as caught:
        resolve(corpus, name)
    assert trained in caught.value.hint


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rows", "is a dataset"),
        ("run-{by_hand[by-hand]}-answers", "is a run_table"),
        ("run-nobody", "No artifact called 'run-nobody'"),
    ],
)
def test_what_is_no_model_is_refused_by_its_name(corpus: Corpus, name: str, words: str) -> None:
    with pytest.raises(NotFoundError, match=words) as caught:
        resolve(corpus, name.format(**corpus.runs))
    assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "candidates"),
    [
        ("run-twin", ("model-{by_hand[twin-0]}", "model-{by_hand[twin-1]}")),
        ("run-t441", ("model-t441", "checkpoint-t441")),
    ],
)
def test_two_answers_are_listed(corpus: Corpus, name: str, candidates: tuple[str, ...]) -> None:
    with pytest.raises(AmbiguousNameError) as caught:
        resolve(corpus, name)
    assert all(one.format(**corpus.runs) in caught.value.message for one in candidates)


# peft asks transformers by a name that this transformers has renamed.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
def test_an_adapter_of_our_callback_knows_its_base(corpus: Corpus) -> None:
    pulled = pull(corpus, "run-adapter")
    assert pulled.version.metadata["base_artifact"] == "local/corpus/run-ours:v0"
    assert pulled.base is not None
    assert pulled.base.version.qualified_name == "local/corpus/run-ours:v0"
    config = json.loads((pulled.path / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["id2label"]["2"] == "positive"
    source = registry.read_source(pulled.path)
    assert source.weight_files == ("base/model.safetensors", "adapter_model.safetensors")
    model = registry.load(
        "run-adapter", AutoModelForSequenceClassification, settings=corpus.settings
    )
    assert type(model.get_base_model()).__name__ == "BertForSequenceClassification"


def test_an_adapter_of_the_stock_callback_is_joined_by_lineage(corpus: Corpus) -> None:
    pulled = pull(corpus, "run-stock-lora")
    assert pulled.base is not None
    assert pulled.base.version.qualified_name == "local/corpus/run-ours:v0"
    assert registry.read_source(pulled.path).weights_bytes > 0


def test_an_adapter_without_lineage_names_what_is_missing(corpus: Corpus) -> None:
    with pytest.raises(NotFoundError, match="orphan-lora:v1 is a PEFT adapter") as caught:
        pull(corpus, "run-orphan-lora")
    assert "--base" in caught.value.hint
    assert pull(corpus, "run-orphan-lora", base="run-ours:v1").base is not None


def test_a_digest_is_a_selector(corpus: Corpus) -> None:
    first = resolve(corpus, "run-ours:v0")
    assert resolve(corpus, f"run-ours@{first.digest[:12]}").version == "v0"
    snapshot = pull(corpus, "run-ours:v0").digest
    assert pull(corpus, f"run-ours:v0@{snapshot}").version == pull(corpus, "run-ours:v0").version


def test_inspect_groups_a_collection_by_the_runs_of_one_name(corpus: Corpus) -> None:
    environment = {"RUNPORT_CACHE_DIR": str(corpus.settings.cache_dir), "WANDB_PROJECT": "corpus"}
    invoked = CliRunner().invoke(command, ["run-ours", "--json"], env=environment)
    first, second, _ = corpus.runs["ours"]
    runs = json.loads(invoked.stdout)["runs"]
    assert [(group["run"]["id"], group["run"]["name"]) for group in runs] == [
        (second, "ours"),
        (first, "ours"),
    ]
    assert [[v["version"] for v in group["versions"]] for group in runs] == [["v1"], ["v0"]]
    shown = CliRunner().invoke(command, ["run-ours"], env=environment)
    assert f"ours ({first}): v0" in shown.stdout
    pinned = CliRunner().invoke(command, ["run-ours:v0", "--json"], env=environment)
    assert "runs" not in json.loads(pinned.stdout)
