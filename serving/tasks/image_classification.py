"""Image classification as transformers' pipeline does it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from registry import ImageSettings, read_image_settings
from serving.tasks.directory import ModelDirectory
from serving.tasks.label_scores import check_label_parameters, default_function, ranked_labels
from serving.tasks.media import file_bytes
from serving.tasks.picture import image_library, pixel_values, read_picture
from serving.tasks.protocol import Array, Outputs, Row, Samples
from serving.tasks.scores import label_names
from serving.tasks.text import split_rows
from serving.tasks.waveform import stack

_PATCH_PIXELS = 16 * 16
# The usual patch of a vision transformer: what a token is to a text.


@dataclass(frozen=True, slots=True)
class ImageClassification:
    """Labels with scores for an image.

    Parameters of a request: `top_k` (default 5) and `function_to_apply` (`sigmoid`, `softmax`,
    `none`; default: as the model's problem type asks).

    Attributes:
        settings: of the image processor.
        labels: names by output.
        function: applied when the request names none.
    """

    settings: ImageSettings
    labels: tuple[str, ...]
    function: str

    @classmethod
    def open(cls, model: ModelDirectory) -> ImageClassification:
        """Open the task for a model directory.

        Raises:
            LoadError: Pillow is not installed, or the label names cannot be used.
            RegistryError: the directory does not say how images are prepared.
        """
        image_library()
        labels = label_names(model.config)
        function = default_function(model.config, single_is_sigmoid=True, labels=len(labels))
        return cls(read_image_settings(model.path), labels, function)

    @property
    def name(self) -> str:
        """`image-classification`."""
        return "image-classification"

    @property
    def samples(self) -> Samples:
        """A grey image."""
        file = io.BytesIO()
        image_library().new("RGB", (8, 8), (128, 128, 128)).save(file, "PNG")
        return Samples((file.getvalue(),))

    def preprocess(self, item: object, parameters: Mapping[str, object]) -> tuple[Row]:
        """Decode an image file.

        Raises:
            InvalidInputError: it is none, or a parameter cannot be used.
            PayloadTooLargeError: it has too many pixels.
        """
        check_label_parameters(parameters)
        pixels = pixel_values(read_picture(file_bytes(item)), self.settings)
        height, width = self.settings.output_size
        length = max(1, height * width // _PATCH_PIXELS)
        return (Row({"pixel_values": pixels}, length=length, truncated=False),)

    def collate(self, rows: Sequence[Row], input_names: Sequence[str]) -> dict[str, Array]:
        """Stack the images; they have one size."""
        return stack(rows, input_names)

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
        return ranked_labels(logits, self.labels, parameters, function=self.function, top_k=5)
