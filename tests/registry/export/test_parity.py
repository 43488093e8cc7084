import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.export.comparison import compare
from registry.export.parity import (
    MAX_DRAWN_TOKENS,
    Frame,
    cut,
    draw_inputs,
    draw_lengths,
    pad,
    plan_batches,
)
from registry.export.tasks import TASKS

FRAME = Frame(
    prefix=(2,), suffix=(3,), ordinary=np.arange(5, 50), pad_id=0, segments=2, pad_left=False
)


@given(st.integers(1, 100_000), st.integers(0, 4), st.integers(0, 5))
def test_lengths_reach_both_ends_and_stay_inside(maximum: int, fewest: int, seed: int) -> None:
    lengths = draw_lengths(maximum, fewest, np.random.default_rng(seed))
    longest = max(min(maximum, MAX_DRAWN_TOKENS), fewest, 1)
    assert lengths[-1] == longest
    assert lengths[0] == max(fewest, 1)
    assert lengths == sorted(lengths)


def test_drawn_inputs_are_framed_and_cover_the_vocabulary() -> None:
    rng = np.random.default_rng(0)
    inputs = draw_inputs(FRAME, [2, 3, 400], rng)
    assert [len(one["input_ids"]) for one in inputs] == [2, 3, 400]
    assert all(one["input_ids"][0] == 2 and one["input_ids"][-1] == 3 for one in inputs)
    assert set(inputs[2]["input_ids"][1:-1]) == set(range(5, 50))
    assert set(inputs[2]["token_type_ids"]) == {0, 1}


@given(st.lists(st.integers(1, 600), min_size=1, max_size=80))
def test_every_input_is_in_a_batch_and_the_extremes_meet(lengths: list[int]) -> None:
    *batches, extremes = plan_batches(lengths)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert {lengths[index] for index in extremes} >= {min(lengths), max(lengths)}
    assert all(len(batch) <= 8 for batch in batches)


@pytest.mark.parametrize("pad_left", [False, True])
def test_padding_is_masked_and_on_its_side(pad_left: bool) -> None:
    inputs = draw_inputs(FRAME, [3, 5], np.random.default_rng(0))
    batch = pad(inputs, ["input_ids", "attention_mask"], pad_id=1, pad_left=pad_left)
    row = batch["input_ids"][0]
    assert list(row[:2] if pad_left else row[3:]) == [1, 1]
    assert batch["attention_mask"].sum() == 8


def logits(*values: float) -> dict[str, np.ndarray]:
    return {"logits": np.array(values, dtype=np.float32)}


def test_a_wrong_answer_in_a_batch_alone_is_seen() -> None:
    reference = [logits(1, 0), logits(0, 1)]
    found = compare(reference, reference, [(0, logits(0, 1)), (1, logits(0, 1))], "label", None)
    assert found.max_abs_diff == 0
    assert found.max_batched_abs_diff == 1
    assert found.max_invariance_abs_diff == 1
    assert (found.label_agreement, found.batched_label_agreement) == (1.0, 0.5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_is_the_largest_difference(value: float) -> None:
    found = compare([logits(1, 0)], [logits(value, 0)], [(0, logits(1, 0))], "label", None)
    assert found.max_abs_diff > 1e300
    assert np.isfinite(found.max_abs_diff)


@pytest.mark.parametrize(
    ("problem_type", "other", "agreement"),
    [
        (None, logits(0.2, 0.1), 1.0),
        ("multi_label_classification", logits(0.2, 0.1), 0.0),
        ("multi_label_classification", logits(0.2, -5), 1.0),
        ("regression", logits(7, 7), 1.0),
    ],
)
def test_agreement_follows_the_problem(
    problem_type: str | None, other: dict[str, np.ndarray], agreement: float
) -> None:
    found = compare([logits(1, -1)], [other], [(0, other)], "label", problem_type)
    assert found.label_agreement == agreement


@pytest.mark.parametrize("pad_left", [False, True])
def test_a_row_is_cut_out_of_its_batch_without_padding(pad_left: bool) -> None:
    outputs = {"logits": np.arange(24, dtype=np.float32).reshape(2, 4, 3)}
    spec = TASKS["token-classification"]
    found = cut(outputs, 1, 2, spec, pad_left=pad_left)["logits"]
    assert found.shape == (2, 3)
    assert found[0, 0] == (18 if pad_left else 12)


def test_of_a_vocabulary_some_tokens_are_compared_the_ends_among_them() -> None:
    outputs = {"logits": np.arange(100, dtype=np.float32).reshape(1, 100, 1)}
    found = cut(outputs, 0, 90, TASKS["fill-mask"], pad_left=False)["logits"]
    assert len(found) == 8
    assert (found[0, 0], found[-1, 0]) == (0, 89)


@pytest.mark.parametrize(
    ("agreement", "one", "other", "share"),
    [
        ("tokens", {"logits": np.eye(4)}, {"logits": np.eye(4)[[0, 1, 3, 3]]}, 0.75),
        (
            "span",
            {"start_logits": np.eye(3)[0], "end_logits": np.eye(3)[1]},
            {"start_logits": np.eye(3)[0], "end_logits": np.eye(3)[2]},
            0.0,
        ),
        ("direction", {"state": np.eye(4)}, {"state": 2 * np.eye(4)[[0, 1, 2, 2]]}, 0.75),
    ],
)
def test_each_task_has_its_own_agreement(
    agreement: str, one: dict[str, np.ndarray], other: dict[str, np.ndarray], share: float
) -> None:
    found = compare([one], [other], [(0, one)], agreement, None)
    assert (found.label_agreement, found.batched_label_agreement) == (share, 1.0)
