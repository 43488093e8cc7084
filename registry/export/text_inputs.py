"""Inputs of a text model from its export alone: samples and drawn ones; no transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import tokenizers

from registry.errors import ExportError
from registry.export.parity import Encoded, Frame, draw_inputs, draw_lengths
from registry.export.store import Export

ENOUGH_SAMPLES = 32
"""With fewer, half of them are too few to calibrate on, and the others too few to judge by."""

_MAX_SAMPLES = 1024
_MAX_SAMPLES_BYTES = 16 * 1024 * 1024
_CALIBRATION_INPUTS = 128
_SEED = 21
_PROBE_TEXT = "a"


@dataclass(frozen=True, slots=True)
class TextInputs:
    """What a derived export is calibrated on and judged by.

    Attributes:
        judged: held-out samples first, then drawn inputs.
        held_out: how many of `judged` are samples.
        calibration: inputs for static scales; none of them is among the held-out samples.
        calibrated_on: what those are, in words.
        pad_id, pad_left: how rows are filled up.
    """

    judged: Sequence[Encoded]
    held_out: int
    calibration: Sequence[Encoded]
    calibrated_on: str
    pad_id: int
    pad_left: bool


class _Sample(msgspec.Struct):
    text: str
    text_pair: str | None = None


def read_inputs(base: Export, samples_file: Path | None) -> TextInputs:
    """Return the inputs for an export derived from `base`.

    Of enough samples every second one calibrates and the others judge; with fewer, drawn inputs
    do both, and the samples judge too.

    Raises:
        ExportError: the tokenizer cannot be loaded, or a line is no JSON object with a `text`.
    """
    settings = _settings(base.path)
    tokenizer = _tokenizer(base, settings)
    frame = _frame(base, tokenizer, settings)
    samples = _samples(samples_file, tokenizer) if samples_file is not None else []
    enough = len(samples) >= ENOUGH_SAMPLES
    held_out = samples[1::2] if enough else samples
    calibration = samples[::2] if enough else _drawn(base, frame, _SEED + 1)
    on = f"{len(calibration)} samples" if enough else f"{len(calibration)} drawn inputs"
    return TextInputs(
        judged=[*held_out, *_drawn(base, frame, _SEED)],
        held_out=len(held_out),
        calibration=calibration[:_CALIBRATION_INPUTS],
        calibrated_on=on,
        pad_id=frame.pad_id,
        pad_left=frame.pad_left,
    )


def _settings(directory: Path) -> Mapping[str, Any]:
    """Return `config.json`, and over it what `tokenizer_config.json` says."""
    merged: dict[str, Any] = {}
    for name in ("config.json", "tokenizer_config.json"):
        path = directory / name
        if path.is_file():
            merged |= msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    return merged


def _tokenizer(base: Export, settings: Mapping[str, Any]) -> tokenizers.Tokenizer:
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(base.path / "tokenizer.json"))
    # The library raises plain Exception, and panics that are none.
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise ExportError(
            f"The export's tokenizer.json cannot be loaded: {error}",
            hint="Export again with --force.",
        ) from error
    tokenizer.no_padding()
    side = "left" if settings.get("truncation_side") == "left" else "right"
    tokenizer.enable_truncation(base.max_tokens, direction=side)
    return tokenizer


def _frame(base: Export, tokenizer: tokenizers.Tokenizer, settings: Mapping[str, Any]) -> Frame:
    encoded = tokenizer.encode(_PROBE_TEXT)
    inner = [index for index, flag in enumerate(encoded.special_tokens_mask) if not flag]
    ids = encoded.ids
    start, end = (inner[0], inner[-1] + 1) if inner else (len(ids), len(ids))
    known = tokenizer.get_vocab_size(with_added_tokens=True)
    size = min(int(settings.get("vocab_size") or known), known)
    special = [
        number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special
    ]
    ordinary = np.setdiff1d(np.arange(size), np.array(special, dtype=np.int64))
    if not ordinary.size:
        raise ExportError("The tokenizer has special tokens only.", hint="Log it again.")
    takes_segments = "token_type_ids" in base.input_names
    return Frame(
        prefix=tuple(ids[:start]),
        suffix=tuple(ids[end:]),
        ordinary=ordinary,
        pad_id=_pad_id(tokenizer, settings),
        segments=int(settings.get("type_vocab_size") or 1) if takes_segments else 1,
        pad_left=settings.get("padding_side") == "left",
    )


def _pad_id(tokenizer: tokenizers.Tokenizer, settings: Mapping[str, Any]) -> int:
    declared = settings.get("pad_token")
    name = declared.get("content") if isinstance(declared, dict) else declared
    found = tokenizer.token_to_id(name) if isinstance(name, str) else None
    configured = settings.get("pad_token_id")
    return found if found is not None else configured if isinstance(configured, int) else 0


def _drawn(base: Export, frame: Frame, seed: int) -> list[Encoded]:
    rng = np.random.default_rng(seed)
    fewest = len(frame.prefix) + len(frame.suffix)
    return [*draw_inputs(frame, draw_lengths(base.max_tokens, fewest, rng), rng)]


def _samples(path: Path, tokenizer: tokenizers.Tokenizer) -> list[Encoded]:
    with path.open("rb") as file:
        lines = file.read(_MAX_SAMPLES_BYTES).splitlines()
    samples: list[Encoded] = []
    for number, line in enumerate(lines[:_MAX_SAMPLES], start=1):
        try:
            sample = msgspec.json.decode(line, type=_Sample)
        except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ExportError(
                f"Line {number} of {path.name} is not an object with a text: {error}",
                hint='One line is {"text": "…"} or {"text": "…", "text_pair": "…"}.',
            ) from error
        encoding = tokenizer.encode(sample.text, sample.text_pair or None)
        if encoding.ids:
            samples.append(
                {
                    "input_ids": np.array(encoding.ids, dtype=np.int64),
                    "attention_mask": np.array(encoding.attention_mask, dtype=np.int64),
                    "token_type_ids": np.array(encoding.type_ids, dtype=np.int64),
                }
            )
    return samples
