"""Waveforms as rows: normalised as `Wav2Vec2FeatureExtractor` does, batched with their equals."""

from __future__ import annotations

import io
import wave
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from registry import (
    AudioSettings,
    fewest_samples,
    frame_stride,
    model_frames,
    read_audio_settings,
)
from serving.errors import InvalidInputError, PayloadTooLargeError
from serving.tasks.directory import ModelDirectory
from serving.tasks.media import file_bytes
from serving.tasks.protocol import Array, Row
from serving.tasks.sound import audio_libraries, read_sound

MAX_ROW_SECONDS = 60
"""Longest waveform that runs in one piece: attention takes memory by the square of it."""

_SAMPLE_SECONDS = (0.1, 1.0)


@dataclass(frozen=True, slots=True)
class WaveformEncoder:
    """Audio files -> waveforms -> rows -> batches of waveforms of one length.

    Attributes:
        settings: of the feature extractor.
        config: the model's; its convolutions say how long a frame is.
    """

    settings: AudioSettings
    config: Mapping[str, Any]

    @classmethod
    def open(cls, model: ModelDirectory) -> WaveformEncoder:
        """Read the settings of a model directory.

        Raises:
            LoadError: what reads audio files is not installed.
            RegistryError: the directory does not say how, or in a way that is not known.
        """
        audio_libraries()
        return cls(read_audio_settings(model.path), model.config)

    @property
    def frame_stride(self) -> int:
        """Samples between two frames of the model."""
        return frame_stride(self.config)

    @property
    def sample_files(self) -> tuple[bytes, ...]:
        """Short WAV files to warm a worker with."""
        rate = self.settings.sampling_rate
        return tuple(
            _wav_file(max(fewest_samples(self.config), int(seconds * rate)), rate)
            for seconds in _SAMPLE_SECONDS
        )

    def read(self, item: object) -> Array:
        """Return the samples of an input at the model's rate.

        Raises:
            InvalidInputError: it is no audio file, or too short for the model.
            PayloadTooLargeError: it is too long.
        """
        return read_sound(file_bytes(item), self.settings.sampling_rate)

    def row(self, samples: Array, facts: object = None) -> Row:
        """Return a waveform as a row; its length is in frames of the model.

        Raises:
            InvalidInputError: it is too short to make one frame.
            PayloadTooLargeError: it is longer than `MAX_ROW_SECONDS`.
        """
        frames = model_frames(self.config, len(samples))
        if frames < 1:
            raise InvalidInputError(
                f"The audio has {len(samples)} samples at {self.settings.sampling_rate} Hz; "
                f"the model needs {fewest_samples(self.config)}.",
                hint="Send a longer recording.",
            )
        if len(samples) > MAX_ROW_SECONDS * self.settings.sampling_rate:
            raise PayloadTooLargeError(
                f"The audio is longer than the {MAX_ROW_SECONDS} s that run in one piece.",
                hint='Speech recognition takes it in parts: {"chunk_length_s": 30}.',
            )
        if self.settings.normalize:
            samples = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
        arrays = {"input_values": samples.astype(np.float32, copy=False)}
        return Row(arrays, length=frames, truncated=False, facts=facts, kind=len(samples))

    def collate(self, rows: Sequence[Row], input_names: Sequence[str]) -> dict[str, Array]:
        """Return the waveforms as one array of shape (rows, samples); they have one length."""
        return stack(rows, input_names)


def stack(rows: Sequence[Row], input_names: Sequence[str]) -> dict[str, Array]:
    """Return the arrays of rows of one shape, stacked."""
    return {name: np.stack([row.arrays[name] for row in rows]) for name in input_names}


def _wav_file(samples: int, rate: int) -> bytes:
    tone = np.sin(np.arange(samples) * (2 * np.pi * 220 / rate)) * 8000
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(tone.astype("<i2").tobytes())
    return file.getvalue()
