"""Audio classification as transformers' pipeline does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serving.tasks.directory import ModelDirectory
from serving.tasks.label_scores import check_label_parameters, default_function, ranked_labels
from serving.tasks.protocol import Array, Outputs, Row, Samples
from serving.tasks.scores import label_names
from serving.tasks.text import split_rows
from serving.tasks.waveform import WaveformEncoder


@dataclass(frozen=True, slots=True)
class AudioClassification:
    """Labels with scores for a recording.

    Parameters of a request: `top_k` (default: all labels, as the pipeline gives) and
    `function_to_apply` (`sigmoid`, `softmax`, `none`; default: as the model's problem type asks).

    Attributes:
        encoder: reads recordings.
        labels: names by output.
        function: applied when the request names none.
    """

    encoder: WaveformEncoder
    labels: tuple[str, ...]
    function: str

    @classmethod
    def open(cls, model: ModelDirectory) -> AudioClassification:
        """Open the task for a model directory.

        Raises:
            LoadError: what it needs is not installed, or the label names cannot be used.
        """
        labels = label_names(model.config)
        function = default_function(model.config, single_is_sigmoid=False, labels=len(labels))
        return cls(WaveformEncoder.open(model), labels, function)

    @property
    def name(self) -> str:
        """`audio-classification`."""
        return "audio-classification"

    @property
    def samples(self) -> Samples:
        """Short recordings of a tone."""
        return Samples(self.encoder.sample_files)

    def preprocess(self, item: object, parameters: Mapping[str, object]) -> tuple[Row]:
        """Decode an audio file.

        Raises:
            InvalidInputError: it is none, or a parameter cannot be used.
            PayloadTooLargeError: it is too long.
        """
        check_label_parameters(parameters)
        return (self.encoder.row(self.encoder.read(item)),)

    def collate(self, rows: Sequence[Row], input_names: Sequence[str]) -> dict[str, Array]:
        """Stack waveforms of one length."""
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
        logits = outputs[0]["logits"]
        return ranked_labels(
            logits, self.labels, parameters, function=self.function, top_k=len(self.labels)
        )
