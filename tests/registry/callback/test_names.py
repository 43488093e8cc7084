from __future__ import annotations

import pytest

from registry.callback.names import checkpoint_aliases, chosen_run_name, collection_name


@pytest.mark.parametrize(
    ("run_name", "expected"),
    [
        ("bert-base-high-lr", "run-bert-base-high-lr"),
        ("bert/high lr:v2", "run-bert_high_lr_v2"),
        ("été 模型", "run-_t____"),
        ("a.b_c-D9", "run-a.b_c-D9"),
    ],
)
def test_names_are_made_fit_for_wandb(run_name: str, expected: str) -> None:
    assert collection_name(run_name) == expected


def test_a_long_name_loses_its_middle_and_fits() -> None:
    name = collection_name("a" * 100 + "b" * 100)
    assert len(name) == 128
    assert name.startswith("run-aaa")
    assert name.endswith("bbb")
    assert ".." in name
    assert len(collection_name("c" * 200, "-training-state")) == 128


def test_the_sdk_takes_the_names_and_agrees_with_them() -> None:
    import wandb
    from wandb.util import make_artifact_name_safe

    for run_name in ("bert/high lr:v2", "été 模型", "x" * 300):
        name = collection_name(run_name)
        assert name == make_artifact_name_safe(f"run-{run_name}")
        assert wandb.Artifact(name, type="model").name == name


def test_a_run_name_that_is_the_output_directory_was_not_chosen() -> None:
    assert chosen_run_name("./out", "./out") is None
    assert chosen_run_name("", "./out") is None
    assert chosen_run_name(None, "./out") is None
    assert chosen_run_name("bert", "./out") == "bert"


def test_checkpoint_aliases() -> None:
    assert checkpoint_aliases(500, 1.23456) == ("checkpoint_global_step_500", "epoch_1.23")
    assert checkpoint_aliases(3, None) == ("checkpoint_global_step_3",)
