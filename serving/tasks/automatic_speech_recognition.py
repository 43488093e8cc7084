"""Speech recognition with CTC models as transformers' pipeline does it, also in parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.errors import InvalidInputError, NonFiniteOutputError
from serving.tasks.ctc import CtcDecoder
from serving.tasks.directory import ModelDirectory
from serving.tasks.parameters import check_known
from serving.tasks.protocol import Array, Outputs, Row, Samples
from serving.tasks.waveform import MAX_ROW_SECONDS, WaveformEncoder

_PARAMETERS = ("return_timestamps", "chunk_length_s", "stride_length_s")
_DEFAULT_STRIDE = 6  # a part overlaps its neighbours by this share of its length, on each side


@dataclass(frozen=True, slots=True)
class _Part:
    """Which frames of a row count: all but `left` and `right` of `frames`; None for all."""

    frames: int
    left: int
    right: int


@dataclass(frozen=True, slots=True)
class AutomaticSpeechRecognition:
    """What a recording says.

    Parameters of a request: `return_timestamps` (`char` or `word`), `chunk_length_s` (parts of a
    long recording; without it, it runs in one piece), `stride_length_s` (what a part shares with
    its neighbours, one number or left and right; default: a sixth of the part).

    Attributes:
        encoder: reads recordings.
        decoder: reads frames.
    """

    encoder: WaveformEncoder
    decoder: CtcDecoder

    @classmethod
    def open(cls, model: ModelDirectory) -> AutomaticSpeechRecognition:
        """Open the task for a model directory.

        Raises:
            LoadError: what it needs is not installed, or the vocabulary cannot be used.
        """
        return cls(WaveformEncoder.open(model), CtcDecoder.open(model))

    @property
    def name(self) -> str:
        """`automatic-speech-recognition`."""
        return "automatic-speech-recognition"

    @property
    def samples(self) -> Samples:
        """Short recordings of a tone."""
        return Samples(self.encoder.sample_files)

    def preprocess(self, item: object, parameters: Mapping[str, object]) -> list[Row]:
        """Decode an audio file into its rows: itself, or parts of it.

        Raises:
            InvalidInputError: it is no audio file, too short, or a parameter cannot be used.
            PayloadTooLargeError: it is too long.
        """
        check_known(parameters, _PARAMETERS)
        _timestamps(parameters)
        cut = self._cut(parameters)
        samples = self.encoder.read(item)
        if cut is None:
            return [self.encoder.row(samples)]
        rows = [self.encoder.row(part, facts) for part, facts in self._parts(samples, *cut)]
        if not rows:
            raise InvalidInputError("The audio is empty.", hint="Send a longer recording.")
        return rows

    def collate(self, rows: Sequence[Row], input_names: Sequence[str]) -> dict[str, Array]:
        """Stack waveforms of one length."""
        return self.encoder.collate(rows, input_names)

    def split(self, rows: Sequence[Row], outputs: Mapping[str, Array]) -> list[Outputs]:
        """Return the best token of each frame, and whether all that it was chosen of is finite."""
        logits = outputs["logits"]
        best = logits.argmax(axis=-1)
        finite: Array = np.array(np.isfinite(logits).all(axis=(1, 2)))
        return [{"tokens": best[row], "finite": finite[row]} for row in range(len(rows))]

    def postprocess(
        self, rows: Sequence[Row], outputs: Sequence[Outputs], parameters: Mapping[str, object]
    ) -> dict[str, Any]:
        """Return `{"text"}`, and `chunks` of `{"text", "timestamp"}` if they were asked for.

        Raises:
            InvalidInputError: a parameter cannot be used.
            NonFiniteOutputError: a logit is NaN or infinite.
        """
        if not all(output["finite"].all() for output in outputs):
            raise NonFiniteOutputError(
                "The model answered NaN or infinity.",
                hint="The weights are damaged or overflow; serve another version.",
            )
        kept = [
            output["tokens"] if row.facts is None else _inner(output["tokens"], row.facts)
            for row, output in zip(rows, outputs, strict=True)
        ]
        pieces = self.decoder.characters(np.concatenate(kept).tolist())
        answer: dict[str, Any] = {"text": self.decoder.text(pieces)}
        wanted = _timestamps(parameters)
        if wanted is not None:
            found = pieces if wanted == "char" else self.decoder.words(pieces)
            answer["chunks"] = [
                {
                    "text": piece.text,
                    "timestamp": [self._seconds(piece.start), self._seconds(piece.stop)],
                }
                for piece in found
            ]
        return answer

    def _seconds(self, frames: int) -> float:
        return frames * self.encoder.frame_stride / self.encoder.settings.sampling_rate

    def _cut(self, parameters: Mapping[str, object]) -> tuple[int, int, int] | None:
        """Return samples of a part and of its left and right stride; None takes it whole."""
        length_s = _seconds(parameters, "chunk_length_s")
        if not length_s:
            return None
        if length_s > MAX_ROW_SECONDS:
            raise InvalidInputError(f"chunk_length_s is above {MAX_ROW_SECONDS}.")
        left_s, right_s = _strides(parameters, length_s)
        align = self.encoder.frame_stride
        rate = self.encoder.settings.sampling_rate
        part, left, right = (
            int(round(seconds * rate / align) * align) for seconds in (length_s, left_s, right_s)
        )
        if part <= left + right:
            raise InvalidInputError(
                "chunk_length_s is not longer than its strides.", hint="Send smaller strides."
            )
        return part, left, right

    def _parts(
        self, samples: Array, part: int, left: int, right: int
    ) -> Iterator[tuple[Array, _Part]]:
        """Yield the parts of a recording with what of each counts, as the pipeline cuts it."""
        for start in range(0, len(samples), part - left - right):
            piece = samples[start : start + part]
            last = start + part >= len(samples)
            before = left if start else 0
            if len(piece) > before:
                yield piece, self._in_frames(len(piece), before, 0 if last else right)
            if last:
                return

    def _in_frames(self, samples: int, left: int, right: int) -> _Part:
        frames = round(samples * (1 / self.encoder.frame_stride))
        return _Part(frames, round(left / samples * frames), round(right / samples * frames))


def _inner(tokens: Array, part: _Part) -> Array:
    return tokens[part.left : part.frames - part.right]


def _timestamps(parameters: Mapping[str, object]) -> str | None:
    wanted = parameters.get("return_timestamps")
    if wanted is None or wanted is False:
        return None
    if wanted not in ("char", "word"):
        raise InvalidInputError("return_timestamps is not known.", hint='Use "char" or "word".')
    return str(wanted)


def _strides(parameters: Mapping[str, object], length_s: float) -> tuple[float, float]:
    value = parameters.get("stride_length_s")
    if isinstance(value, list) and len(value) == 2:
        pair = [_seconds({"stride_length_s": one}, "stride_length_s") for one in value]
        return pair[0] or 0.0, pair[1] or 0.0
    stride_s = _seconds(parameters, "stride_length_s")
    if stride_s is None:
        stride_s = length_s / _DEFAULT_STRIDE
    return stride_s, stride_s


def _seconds(parameters: Mapping[str, object], name: str) -> float | None:
    value = parameters.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6:
        raise InvalidInputError(f"{name} is not a number of seconds.")
    return float(value)
