"""Sentence similarity: the cosines of one text's embedding to those of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from serving.errors import InvalidInputError
from serving.tasks.directory import ModelDirectory
from serving.tasks.feature_extraction import STATES, FeatureExtraction
from serving.tasks.parameters import check_known, texts
from serving.tasks.pooling import unit
from serving.tasks.protocol import Array, Outputs, Row, Samples
from serving.tasks.scores import finite
from serving.tasks.text import SAMPLE_TEXTS

_EMBEDDING = "embedding"


@dataclass(frozen=True, slots=True)
class SentenceSimilarity:
    """Cosines between a source sentence and others; an item makes one row per text.

    A model that sentence-transformers did not save is pooled by the mean of its tokens.

    Attributes:
        features: makes rows, and says how the model's embeddings are made.
    """

    features: FeatureExtraction

    @classmethod
    def open(cls, model: ModelDirectory) -> SentenceSimilarity:
        """Open the task for a model directory; see `FeatureExtraction.open` for what it raises."""
        return cls(FeatureExtraction.open(model))

    @property
    def name(self) -> str:
        """`sentence-similarity`."""
        return "sentence-similarity"

    @property
    def samples(self) -> Samples:
        """One text against three."""
        return Samples([{"source_sentence": SAMPLE_TEXTS[0], "sentences": [*SAMPLE_TEXTS]}])

    def preprocess(self, item: object, parameters: Mapping[str, object]) -> list[Row]:
        """Tokenise the source sentence, then the others.

        Raises:
            InvalidInputError: the item is of another form, or there is a parameter.
        """
        check_known(parameters, ())
        if not isinstance(item, Mapping) or set(item) != {"source_sentence", "sentences"}:
            raise InvalidInputError(
                "An input is no source sentence with sentences.",
                hint='Send {"source_sentence": "…", "sentences": ["…"]}.',
            )
        source = item["source_sentence"]
        if not isinstance(source, str):
            raise InvalidInputError("source_sentence is no text.")
        return [self.features.row(one) for one in (source, *texts(item["sentences"], "sentences"))]

    def collate(self, rows: Sequence[Row], input_names: Sequence[str]) -> dict[str, Array]:
        """Pad the rows to the longest."""
        return self.features.collate(rows, input_names)

    def split(self, rows: Sequence[Row], outputs: Mapping[str, Array]) -> list[Outputs]:
        """Return each row's embedding, which is far smaller than its tokens' vectors."""
        modules = self.features.modules
        modes = modules.pooling if modules else ("mean",)
        return [
            {_EMBEDDING: self.features.embedding(one[STATES], modes)}
            for one in self.features.split(rows, outputs)
        ]

    def postprocess(
        self, rows: Sequence[Row], outputs: Sequence[Outputs], parameters: Mapping[str, object]
    ) -> list[float]:
        """Return one cosine per sentence, in their order.

        Raises:
            NonFiniteOutputError: a value is NaN or infinite.
        """
        source, *others = (unit(finite(one[_EMBEDDING])) for one in outputs)
        return [float(source @ other) for other in others]
