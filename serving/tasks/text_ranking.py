"""Text ranking with a cross-encoder, as sentence-transformers does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.errors import InvalidInputError, LoadError
from serving.tasks.directory import ModelDirectory
from serving.tasks.parameters import check_known, texts, truth, whole_number
from serving.tasks.protocol import Array, Outputs, Row, Samples
from serving.tasks.scores import finite_logits, label_names, sigmoid
from serving.tasks.text import SAMPLE_TEXTS, TextEncoder, split_rows

_PARAMETERS = ("raw_scores", "return_text", "top_k")


@dataclass(frozen=True, slots=True)
class TextRanking:
    """How well each of several texts answers a query; an item makes one row per text.

    Parameters of a request: `raw_scores` (default false; true gives logits), `return_text`
    (default false) and `top_k` (default: all).

    Attributes:
        encoder: tokenises and cuts, the longer text first.
        bounded: whether scores are probabilities; as the model was saved.
    """

    encoder: TextEncoder
    bounded: bool

    @classmethod
    def open(cls, model: ModelDirectory) -> TextRanking:
        """Open the task for a model directory.

        Raises:
            LoadError: the tokenizer cannot be used, or the model has not one output.
        """
        labels = label_names(model.config)
        if len(labels) != 1:
            raise LoadError(
                f"The model has {len(labels)} labels; one that ranks has a single output.",
                hint="Serve it for text-classification.",
            )
        return cls(TextEncoder.open(model), not _activation(model).endswith("Identity"))

    @property
    def name(self) -> str:
        """`text-ranking`."""
        return "text-ranking"

    @property
    def samples(self) -> Samples:
        """A query and texts of three lengths."""
        return Samples([{"query": SAMPLE_TEXTS[0], "texts": [*SAMPLE_TEXTS]}])

    def preprocess(self, item: object, parameters: Mapping[str, object]) -> list[Row]:
        """Tokenise the query with each text.

        Raises:
            InvalidInputError: the item is of another form, or a parameter cannot be used.
        """
        check_known(parameters, _PARAMETERS)
        truth(parameters, "raw_scores", False)
        truth(parameters, "return_text", False)
        whole_number(parameters, "top_k", None)
        if not isinstance(item, Mapping) or set(item) != {"query", "texts"}:
            raise InvalidInputError(
                "An input is no query with texts.", hint='Send {"query": "…", "texts": ["…"]}.'
            )
        query = item["query"]
        if not isinstance(query, str):
            raise InvalidInputError("query is no text.")
        return [
            self.encoder.row(self.encoder.encoding(query, text), facts=text)
            for text in texts(item["texts"], "texts")
        ]

    def collate(self, rows: Sequence[Row], input_names: Sequence[str]) -> dict[str, Array]:
        """Pad the rows to the longest."""
        return self.encoder.collate(rows, input_names)

    def split(self, rows: Sequence[Row], outputs: Mapping[str, Array]) -> list[Outputs]:
        """Return each row's logit."""
        return split_rows(rows, outputs, ("logits",))

    def postprocess(
        self, rows: Sequence[Row], outputs: Sequence[Outputs], parameters: Mapping[str, object]
    ) -> list[dict[str, Any]]:
        """Return `[{"index", "score"[, "text"]}, …]`, best first; `index` is the text's place.

        Raises:
            InvalidInputError: a parameter cannot be used.
            NonFiniteOutputError: a logit is NaN or infinite.
        """
        logits = np.concatenate([finite_logits(one["logits"], 1) for one in outputs])
        raw = truth(parameters, "raw_scores", False) or not self.bounded
        scores = logits if raw else sigmoid(logits)
        order = np.argsort(-logits, kind="stable")[: whole_number(parameters, "top_k", None)]
        answers: list[dict[str, Any]] = [
            {"index": int(index), "score": float(scores[index])} for index in order
        ]
        if truth(parameters, "return_text", False):
            for answer in answers:
                answer["text"] = rows[answer["index"]].facts
        return answers


def _activation(model: ModelDirectory) -> str:
    """Return the class that sentence-transformers put on the logit; a sigmoid by default."""
    saved = model.config.get("sentence_transformers")
    named = saved.get("activation_fn") if isinstance(saved, Mapping) else None
    return str(named or model.config.get("sbert_ce_default_activation_function") or "Sigmoid")
