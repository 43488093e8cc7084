"""Labels with scores of one input, as transformers' pipelines for sounds and images rank them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from serving.tasks.parameters import check_known, choice, whole_number
from serving.tasks.protocol import Array
from serving.tasks.scores import finite_logits, sigmoid, softmax

_FUNCTIONS = ("sigmoid", "softmax", "none")


def check_label_parameters(parameters: Mapping[str, object]) -> None:
    """Raise InvalidInputError if a parameter is unknown or cannot be used."""
    check_known(parameters, ("top_k", "function_to_apply"))
    whole_number(parameters, "top_k", None)
    choice(parameters, "function_to_apply", "none", _FUNCTIONS)


def default_function(config: Mapping[str, Any], *, single_is_sigmoid: bool, labels: int) -> str:
    """Return what makes scores of logits, as the model's problem type says.

    Args:
        config: the model's.
        single_is_sigmoid: whether one label alone gets a probability of its own.
        labels: how many there are.
    """
    problem = config.get("problem_type")
    if problem == "regression":
        return "none"
    alone = single_is_sigmoid and labels == 1
    return "sigmoid" if problem == "multi_label_classification" or alone else "softmax"


def ranked_labels(
    logits: Array,
    labels: Sequence[str],
    parameters: Mapping[str, object],
    *,
    function: str,
    top_k: int,
) -> list[dict[str, Any]]:
    """Return `[{"label", "score"}, …]`, best first.

    Args:
        logits: one per label.
        labels: their names.
        parameters: `top_k` and `function_to_apply`.
        function, top_k: where the request names none.

    Raises:
        InvalidInputError: a parameter cannot be used.
        NonFiniteOutputError: a logit is NaN or infinite.
    """
    logits = finite_logits(logits, len(labels))
    wanted = choice(parameters, "function_to_apply", function, _FUNCTIONS)
    scores = logits
    if wanted != "none":
        scores = softmax(logits) if wanted == "softmax" else sigmoid(logits)
    count = whole_number(parameters, "top_k", top_k)
    order = np.argsort(-scores, kind="stable")[:count]
    return [{"label": labels[index], "score": float(scores[index])} for index in order]
