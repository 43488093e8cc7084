"""Models that see an image: converted for the size that their image processor makes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from registry.export.channel import Emit
from registry.export.graph import MAX_BATCH_ROWS
from registry.export.messages import ChildRequest, Success
from registry.export.preprocessing import PREPROCESSOR_FILES, read_image_settings
from registry.export.source import ModelSource
from registry.export.unpadded import convert_unpadded, judge_unpadded

_SEED = 20
_IMAGES = 12


def convert(request: ChildRequest, source: ModelSource, emit: Emit) -> None:
    """Write the export's files, and the evidence that they are to be compared with."""
    height, width = read_image_settings(source.path).output_size
    convert_unpadded(
        request,
        source,
        emit,
        _draw(height, width),
        example_shape=(2, 3, height, width),
        axes={0: ("batch", 1, MAX_BATCH_ROWS)},
        files=PREPROCESSOR_FILES,
    )


def judge(directory: Path, emit: Emit) -> Success:
    """Answer the images of the evidence with ONNX Runtime and report how they compare."""
    return judge_unpadded(directory, emit, unit="pixels in width")


def _draw(
    height: int, width: int
) -> list[dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]]:
    """Return normalised images: plain ones, slopes, waves and noise."""
    rng = np.random.default_rng(_SEED)
    rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    inputs = []
    for number in range(_IMAGES):
        level, slope, speed = rng.uniform(-1, 1, (3, 3, 1, 1)) * [[[[1]]], [[[2]]], [[[40]]]]
        image = level + slope * rows * (number % 2) + np.sin(speed * columns) * (number % 3)
        noise = rng.normal(size=(3, height, width)) * (number % 4) / 3
        pixels = np.clip(image + noise, -2.5, 2.5)
        inputs.append({"pixel_values": np.broadcast_to(pixels, noise.shape).astype(np.float32)})
    return inputs
