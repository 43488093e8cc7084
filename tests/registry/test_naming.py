from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import AmbiguousNameError, NotFoundError
from registry.hub import Collection
from registry.naming import (
    choose_era,
    era_names,
    is_foreign_type,
    is_model_type,
    is_stub,
    metric_value,
    numeric_metrics,
    training_step,
    weights_version,
)
from registry.resolve import select
from registry.selector import Alias, Best, Step, Version
from registry.versions import ArtifactVersion

COLLECTION = Collection("e", "p", "run-bert", "model")


def version(number: int, *aliases: str, **metadata: object) -> ArtifactVersion:
    return ArtifactVersion(
        "e", "p", "run-bert", f"v{number}", f"{number:032x}", "model", aliases, metadata
    )


@pytest.mark.parametrize(
    ("existing", "expected"),
    [
        ({"run-bert": "model", "model-bert": "model"}, "run-bert"),
        ({"model-bert": "model"}, "model-bert"),
        ({"checkpoint-bert": "model"}, "checkpoint-bert"),
        ({"bert": "model", "model-bert": "dataset"}, "bert"),
        ({"run_bert_model": "model"}, "run_bert_model"),
        ({"run-bert": "run_table", "model-bert": "model"}, "model-bert"),
        ({"run-bert": "run_table"}, None),
        ({"run-bert": "classifier", "model-bert": "model"}, "run-bert"),
        ({"bert": "dataset"}, None),
        ({}, None),
    ],
)
def test_eras_are_tried_only_when_the_name_itself_does_not_exist(
    existing: dict[str, str], expected: str | None
) -> None:
    assert choose_era("run-bert", existing) == expected


def test_two_eras_are_ambiguous_and_both_are_named() -> None:
    with pytest.raises(AmbiguousNameError, match="model-bert, checkpoint-bert"):
        choose_era("run-bert", {"checkpoint-bert": "model", "model-bert": "model"})


def test_a_name_with_an_eras_prefix_means_itself() -> None:
    assert era_names("model-bert") == ()


@given(st.text(max_size=40))
def test_era_names_never_fail_and_never_repeat(name: str) -> None:
    candidates = era_names(name)
    assert name not in candidates
    assert len(set(candidates)) == len(candidates)


collections = st.dictionaries(
    st.sampled_from(["bert", "run-bert", "model-bert", "checkpoint-bert", "run_bert_model", "x"]),
    st.sampled_from(["model", "dataset", "run_table", "classifier"]),
)


@given(st.sampled_from(["bert", "run-bert", "model-bert", "run_bert_model", "y"]), collections)
def test_a_choice_is_always_a_candidate_and_never_a_guess(
    name: str, existing: dict[str, str]
) -> None:
    models = [n for n in era_names(name) if existing.get(n) == "model"]
    try:
        chosen = choose_era(name, existing)
    except AmbiguousNameError as error:
        listed = error.message
        assert len(models) > 1
        assert all(model in listed for model in models)
        return
    if existing.get(name) in {"model", "classifier"}:
        assert chosen == name
    else:
        assert chosen == (models[0] if models else None)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)  # fmt: skip
keys = st.sampled_from(["eval/f1", "eval/eval_f1", "eval", "step", "train/global_step", "a/b"])


@given(
    st.dictionaries(keys | st.text(max_size=8), json_values),
    st.lists(st.text(max_size=12) | st.from_regex(r"checkpoint-\w{0,3}"), max_size=3),
    st.text(max_size=12),
)
def test_no_metadata_and_no_alias_is_too_strange(
    metadata: dict[str, object], given_aliases: list[str], metric: str
) -> None:
    found = version(1, *given_aliases)
    found = replace(found, metadata=metadata)
    is_stub(found)
    step = training_step(found)
    assert step is None or step >= 0
    assert all(math.isfinite(value) for value in numeric_metrics(metadata).values())
    for asked in (metric, "eval/f1"):
        value = metric_value(metadata, asked)
        assert value is None or math.isfinite(value)


def test_types() -> None:
    assert is_model_type("model")
    assert is_model_type("sklearn-model")
    assert not is_model_type("run_table")
    assert is_foreign_type("run_table")
    assert is_foreign_type("wandb-history")
    assert not is_foreign_type("classifier")


@pytest.mark.parametrize("key", ["eval/f1", "eval/eval_f1", "eval_f1"])
@pytest.mark.parametrize("asked", ["eval/f1", "eval_f1", "eval/eval_f1"])
def test_the_doubled_metric_key_is_understood(key: str, asked: str) -> None:
    assert metric_value({key: 0.5}, asked) == 0.5


def test_metrics_may_be_nested_and_must_be_finite_numbers() -> None:
    assert metric_value({"eval": {"f1": 1}}, "eval/f1") == 1.0
    for wrong in (math.nan, math.inf, "0.9", True, None):
        assert metric_value({"eval/f1": wrong}, "eval/f1") is None


def test_the_trainers_stub_is_known_by_its_mark_or_alias() -> None:
    stub = version(0, initial_model=True)
    assert is_stub(stub)
    assert is_stub(version(0, "base_model"))
    trained = version(2, "final_model")
    assert weights_version([stub, version(3), trained]) == trained
    assert weights_version([stub, version(1), version(3)]) == version(3)
    assert weights_version([stub]) is None


def test_steps_come_from_the_alias_or_the_metadata() -> None:
    assert training_step(version(1, "checkpoint_global_step_500")) == 500
    assert training_step(version(1, **{"train/global_step": 20.0})) == 20
    assert training_step(version(1, "checkpoint-40")) == 40, "transformers before 4.42"
    assert training_step(version(1)) is None


def test_selection() -> None:
    versions = [
        version(3, "latest", **{"eval/f1": math.nan}),
        version(2, "checkpoint_global_step_20", **{"eval/eval_f1": 0.8, "eval/loss": 0.3}),
        version(1, "best", **{"eval/f1": 0.8, "eval/loss": 0.2}),
        version(0, "base_model", **{"eval/f1": 0.99, "initial_model": True}),
    ]

    def chosen(selector: object, digest: str | None = None) -> str:
        return select(COLLECTION, versions, selector, digest).version  # type: ignore[arg-type]

    assert chosen(Best("eval/f1")) == "v1", "the earliest of equals; no stub, no NaN"
    assert chosen(Best("eval/loss")) == "v1"
    assert chosen(Best("eval/loss", "max")) == "v2"
    assert chosen(Step(20)) == "v2"
    assert chosen(Alias("latest")) == "v3"
    assert chosen(Version(0)) == "v0"
    assert chosen(None, replace(versions[1]).digest[:32]) == "v2"
    for missing in (Best("eval/auc"), Step(7), Alias("prod"), Version(9)):
        with pytest.raises(NotFoundError) as caught:
            chosen(missing)
        assert caught.value.hint
