"""Models that hear a waveform: converted, and compared on drawn ones of many lengths."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from registry.export.channel import Emit
from registry.export.graph import MAX_BATCH_ROWS
from registry.export.messages import ChildRequest, Success
from registry.export.preprocessing import (
    PREPROCESSOR_FILES,
    AudioSettings,
    fewest_samples,
    frame_stride,
    read_audio_settings,
)
from registry.export.source import ModelSource
from registry.export.unpadded import convert_unpadded, judge_unpadded

_TOKENIZER_FILES = (
    *("vocab.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
)
_SEED = 20
_SECONDS = (0.1, 0.5, 1.0, 1.37, 3.0)
_MAX_SECONDS = 600
_ROWS = 3


def convert(request: ChildRequest, source: ModelSource, emit: Emit) -> None:
    """Write the export's files, and the evidence that they are to be compared with."""
    settings = read_audio_settings(source.path)
    fewest, stride = fewest_samples(source.config), frame_stride(source.config)
    two_frames = fewest + stride
    convert_unpadded(
        request,
        source,
        emit,
        _draw(settings, fewest, stride),
        example_shape=(2, max(two_frames + 7, settings.sampling_rate // 4)),
        # One frame alone would be traced as a size that never varies; the graph takes it though.
        axes={
            0: ("batch", 1, MAX_BATCH_ROWS),
            1: ("samples", two_frames, _MAX_SECONDS * settings.sampling_rate),
        },
        files=(*PREPROCESSOR_FILES, *_TOKENIZER_FILES),
    )


def judge(directory: Path, emit: Emit) -> Success:
    """Answer the waveforms of the evidence with ONNX Runtime and report how they compare."""
    return judge_unpadded(directory, emit, unit="samples")


def _draw(
    settings: AudioSettings, fewest: int, stride: int
) -> list[dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]]:
    """Return waveforms of one frame up to seconds, some of each length: tones, noise, silence."""
    rng = np.random.default_rng(_SEED)
    lengths = [fewest, fewest + 1, fewest + stride, fewest + 5 * stride - 1]
    lengths += [int(seconds * settings.sampling_rate) for seconds in _SECONDS]
    inputs = []
    for length in sorted({max(length, fewest) for length in lengths}):
        for row in range(_ROWS):
            times = np.arange(length) / settings.sampling_rate
            pitch = rng.uniform(80, 400) * (1 + 0.3 * np.sin(2 * np.pi * 3 * times))
            phase = np.cumsum(2 * np.pi * pitch / settings.sampling_rate)
            wave = 0.5 * np.sin(phase) + 0.2 * np.sin(3 * phase) + 0.1 * rng.normal(size=length)
            if row == 0:
                wave = np.zeros(length)
            if settings.normalize:
                wave = (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)
            inputs.append({"input_values": wave.astype(np.float32)})
    return inputs
