"""An audio file's bytes -> one channel of samples at the model's rate.

Decoded by libsndfile and resampled by libsoxr at its high quality, the two that transformers' own
`load_audio` uses, so that a file gives the samples that it gives there. (Its pipeline reads bytes
through the program ffmpeg, whose resampler differs in the last digits.)
"""

from __future__ import annotations

import io
import math
from types import ModuleType
from typing import Any

import numpy as np

from serving.errors import InvalidInputError, LoadError, PayloadTooLargeError
from serving.tasks.protocol import Array

MAX_SECONDS = 600
"""Longest recording, whatever its bytes; of a compressed file they say little."""

_MAX_SAMPLES = 120_000_000
_MAX_CHANNELS = 16
_RATES = (1_000, 384_000)
_BLOCK_FRAMES = 1 << 18
_UNKNOWN_SIZE = 0xFFFF_0000
# What programs that write a WAV file into a pipe put where its size belongs.
_HINT = "WAV, FLAC, Ogg (Vorbis, Opus) and MP3 files can be read."


def audio_libraries() -> tuple[ModuleType, ModuleType]:
    """Return `soundfile` and `soxr`.

    Raises:
        LoadError: one is not installed.
    """
    try:
        import soundfile
        import soxr
    # soundfile raises OSError where its C library is missing.
    except (ImportError, OSError) as error:
        raise LoadError(
            f"Models that hear need soundfile and soxr: {error}",
            hint="Install runport[audio].",
        ) from error
    return soundfile, soxr


def read_sound(content: bytes, sampling_rate: int) -> Array:
    """Return the samples of a file as float32, channels averaged.

    Args:
        content: the file.
        sampling_rate: wanted, in hertz.

    Raises:
        InvalidInputError: it is no audio file, of an unknown kind, or cut off.
        PayloadTooLargeError: it is longer than `MAX_SECONDS`, or has too many channels.
    """
    soundfile, soxr = audio_libraries()
    _check_whole(content)
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            rate = int(file.samplerate)
            samples = _mono(file)
    except (soundfile.SoundFileError, TypeError, ValueError) as error:
        raise InvalidInputError("The audio file cannot be read.", hint=_HINT) from error
    if not np.isfinite(samples).all():
        raise InvalidInputError("The audio file holds NaN or infinity.")
    if rate != sampling_rate:
        wanted = math.ceil(len(samples) * sampling_rate / rate)
        samples = soxr.resample(samples, rate, sampling_rate, quality="soxr_hq")
        samples = np.pad(samples, (0, max(0, wanted - len(samples))))[:wanted]
    return np.ascontiguousarray(samples, dtype=np.float32)


def _mono(file: Any) -> Array:
    """Read everything, a block at a time, so that many channels never lie in memory at once."""
    rate, channels = int(file.samplerate), int(file.channels)
    if not _RATES[0] <= rate <= _RATES[1]:
        raise InvalidInputError(f"A sampling rate of {rate} Hz is not read.", hint=_HINT)
    if channels > _MAX_CHANNELS:
        raise PayloadTooLargeError(
            f"The audio has {channels} channels, at most {_MAX_CHANNELS} are read."
        )
    most = min(MAX_SECONDS * rate, _MAX_SAMPLES)
    if file.frames > most:
        raise _too_long()
    blocks: list[Array] = []
    frames = 0
    while frames <= most:
        block = file.read(_BLOCK_FRAMES, dtype="float32", always_2d=True).T
        if not block.shape[1]:
            break
        frames += block.shape[1]
        blocks.append(block.mean(axis=0) if channels > 1 else block[0])
    if frames > most:
        raise _too_long()
    if frames < file.frames:
        raise InvalidInputError("The audio file is cut off.", hint="Send the whole file.")
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def _check_whole(content: bytes) -> None:
    """Raise if a WAV file says that it is longer than it is; libsndfile reads what is there."""
    if content[:4] == b"RIFF" and content[8:12] == b"WAVE":
        size_bytes = int.from_bytes(content[4:8], "little") + 8
        if len(content) + 1 < size_bytes < _UNKNOWN_SIZE:
            raise InvalidInputError("The audio file is cut off.", hint="Send the whole file.")


def _too_long() -> PayloadTooLargeError:
    return PayloadTooLargeError(
        f"The audio is longer than {MAX_SECONDS} s.", hint="Cut it into several files."
    )
