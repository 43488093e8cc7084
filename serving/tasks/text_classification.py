"""Text classification (single-label, multi-label, regression) as transformers' pipeline does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.errors import InvalidInputError
from serving.tasks.directory import ModelDirectory
from serving.tasks.protocol import Array, Outputs, Row, Samples
from serving.tasks.scores import finite_logits, label_names, sigmoid, softmax
from serving.tasks.text import SAMPLE_TEXTS, TextEncoder, split_rows

_FUNCTIONS = ("sigmoid", "softmax", "none")
_ITEM_HINT = 'Send a text, or a pair as {"text": "…", "text_pair": "…"}.'


@dataclass(frozen=True, slots=True)
class TextClassification:
    """Labels with scores for a text or a pair of texts.

    Parameters of a request: `top_k` (a positive number, or null for all; default: 1 as in the
    pipeline) and `function_to_apply` (`sigmoid`, `softmax`, `none`; default: what the model's
    problem type asks for). Equal scores keep the order of the labels.

    Attributes:
        encoder: tokenises.
        labels: names by output.
        default_function: applied when the request names none.
    """

    encoder: TextEncoder
    labels: tuple[str, ...]
    default_function: str

    @classmethod
    def open(cls, model: ModelDirectory) -> TextClassification:
        """Open the task for a model directory.

        Raises:
            LoadError: the tokenizer or the label names cannot be used.
        """
        labels = label_names(model.config)
        return cls(TextEncoder.open(model), labels, _default_function(model.config, len(labels)))

    @property
    def name(self) -> str:
        """`text-classification`."""
        return "text-classification"

    @property
    def samples(self) -> Samples:
        """Texts of three lengths."""
        return Samples(SAMPLE_TEXTS)

    def preprocess(self, item: object, parameters: Mapping[str, object]) -> tuple[Row]:
        """Tokenise a text, or a `{"text", "text_pair"}` object.

        Raises:
            InvalidInputError: the item or a parameter is neither.
        """
        _top_k(parameters)
        self._function(parameters)
        if isinstance(item, str):
            return (self.encoder.encode(item),)
        if isinstance(item, Mapping) and set(item) <= {"text", "text_pair"}:
            text, pair = item.get("text"), item.get("text_pair")
            if isinstance(text, str) and isinstance(pair, str | None):
                return (self.encoder.encode(text, pair),)
        raise InvalidInputError("An input is neither a text nor a pair of texts.", hint=_ITEM_HINT)

    def collate(self, rows: Sequence[Row], input_names: Sequence[str]) -> dict[str, Array]:
        """Pad the rows to the longest."""
        return self.encoder.collate(rows, input_names)

    def split(self, rows: Sequence[Row], outputs: Mapping[str, Array]) -> list[Outputs]:
        """Return each row's logits."""
        return split_rows(rows, outputs, ("logits",))

    def postprocess(
        self, rows: Sequence[Row], outputs: Sequence[Outputs], parameters: Mapping[str, object]
    ) -> list[dict[str, Any]]:
        """Return `[{"label", "score"}, …]`, best first.

        Raises:
            InvalidInputError: a parameter cannot be used.
            NonFiniteOutputError: a logit is NaN or infinite.
        """
        logits = finite_logits(outputs[0]["logits"], len(self.labels))
        scores = _apply(self._function(parameters), logits)
        order = np.argsort(-scores, kind="stable")[: _top_k(parameters)]
        return [{"label": self.labels[i], "score": float(scores[i])} for i in order]

    def _function(self, parameters: Mapping[str, object]) -> str:
        wanted = parameters.get("function_to_apply")
        if wanted is None or wanted == "default":
            return self.default_function
        if not isinstance(wanted, str) or wanted.lower() not in _FUNCTIONS:
            raise InvalidInputError(
                "function_to_apply is not known.", hint=f"Use one of {', '.join(_FUNCTIONS)}."
            )
        return wanted.lower()


def _default_function(config: Mapping[str, Any], labels: int) -> str:
    problem = config.get("problem_type")
    if problem == "regression":
        return "none"
    return "sigmoid" if problem == "multi_label_classification" or labels == 1 else "softmax"


def _top_k(parameters: Mapping[str, object]) -> int | None:
    """Return how many labels are wanted; None is all of them."""
    wanted = parameters.get("top_k", 1)
    if wanted is None:
        return None
    if isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 1:
        raise InvalidInputError(
            "top_k is not a positive whole number.", hint="Leave it out, or send null for all."
        )
    return wanted


def _apply(function: str, logits: Array) -> Array:
    if function == "softmax":
        return softmax(logits)
    return sigmoid(logits) if function == "sigmoid" else logits
