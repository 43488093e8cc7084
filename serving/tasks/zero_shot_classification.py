"""Zero-shot classification with a model of natural-language inference, as the pipeline does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.errors import InvalidInputError, LoadError
from serving.tasks.directory import ModelDirectory
from serving.tasks.parameters import check_known, texts, truth
from serving.tasks.protocol import Array, Outputs, Row, Samples
from serving.tasks.scores import finite_logits, label_names, softmax
from serving.tasks.text import SAMPLE_TEXTS, TextEncoder, split_rows
from serving.tasks.windows import windows

_PARAMETERS = ("candidate_labels", "hypothesis_template", "multi_label")
_TEMPLATE = "This example is {}."
_HINT = 'Send {"inputs": "…", "parameters": {"candidate_labels": ["one", "two"]}}.'


@dataclass(frozen=True, slots=True)
class ZeroShotClassification:
    """Scores of labels that the request names; an item makes one row per label.

    Parameters of a request: `candidate_labels` (a list, or one text with commas),
    `hypothesis_template` (with `{}` where the label goes) and `multi_label` (default false; true
    judges each label by itself).

    Attributes:
        encoder: tokenises; does not cut.
        outputs: how many the model has.
        entailment: which of them says that the hypothesis follows.
    """

    encoder: TextEncoder
    outputs: int
    entailment: int

    @classmethod
    def open(cls, model: ModelDirectory) -> ZeroShotClassification:
        """Open the task for a model directory.

        Raises:
            LoadError: the tokenizer cannot be used, or no label of the model is for entailment.
        """
        labels = label_names(model.config)
        found = [index for index, one in enumerate(labels) if one.lower().startswith("entail")]
        if not found or len(labels) < 2:
            raise LoadError(
                f"None of the model's labels ({', '.join(labels)}) is for entailment.",
                hint="Zero-shot classification needs a model trained on language inference.",
            )
        return cls(TextEncoder.open(model, truncate=False), len(labels), found[0])

    @property
    def name(self) -> str:
        """`zero-shot-classification`."""
        return "zero-shot-classification"

    @property
    def samples(self) -> Samples:
        """Texts of three lengths with two labels."""
        return Samples(SAMPLE_TEXTS, {"candidate_labels": ["one", "another"]})

    def preprocess(self, item: object, parameters: Mapping[str, object]) -> list[Row]:
        """Tokenise the text with each label's hypothesis; of what is too long, the text is cut.

        Raises:
            InvalidInputError: the item is no text, a label leaves no room for it, or a parameter
                cannot be used.
        """
        check_known(parameters, _PARAMETERS)
        truth(parameters, "multi_label", False)
        labels = _labels(parameters)
        template = parameters.get("hypothesis_template")
        template = _TEMPLATE if template is None else template
        # Not str.format: a width in the braces would make a text of any size.
        if not isinstance(template, str) or "{}" not in template:
            raise InvalidInputError("hypothesis_template has no {} for the label.")
        if not isinstance(item, str) or not item:
            raise InvalidInputError("An input is no text, or empty.", hint=_HINT)
        return [self._row(item, template.replace("{}", label)) for label in labels]

    def _row(self, text: str, hypothesis: str) -> Row:
        encoding = self.encoder.encoding(text, hypothesis)
        parts = windows(
            encoding, max_tokens=self.encoder.max_tokens, cut_left=self.encoder.cut_left
        )
        return self.encoder.row(encoding, parts[0])

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
        labels = _labels(parameters)
        logits = np.stack([finite_logits(one["logits"], self.outputs) for one in outputs])
        if truth(parameters, "multi_label", False) or len(labels) == 1:
            against = self.outputs - 1 if self.entailment == 0 else 0
            scores = softmax(logits[:, [against, self.entailment]])[:, 1]
        else:
            scores = softmax(logits[:, self.entailment])
        order = np.argsort(-scores, kind="stable")
        return [{"label": labels[index], "score": float(scores[index])} for index in order]


def _labels(parameters: Mapping[str, object]) -> list[str]:
    wanted = parameters.get("candidate_labels")
    if isinstance(wanted, str):
        wanted = [label.strip() for label in wanted.split(",") if label.strip()]
    return texts(wanted, "candidate_labels")
