"""What turns a waveform or an image into a model's input, as the model's directory says; pure.

transformers writes it to `preprocessor_config.json`, or with a tokenizer together to
`processor_config.json`. What a file leaves out is the default of its class.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from registry.errors import ExportError, IntegrityError

PREPROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
"""Where a directory may say it, the first that has it counts."""

_MAX_JSON_BYTES = 2**20
_WAVEFORMS = "Wav2Vec2FeatureExtractor"
_CONV_KERNEL = (10, 3, 3, 3, 3, 2, 2)
_CONV_STRIDE = (5, 2, 2, 2, 2, 2, 2)
_HALF, _CLIP_MEAN = (0.5, 0.5, 0.5), (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_BILINEAR, _BICUBIC = 2, 3
_WARP_FROM = 384
# ConvNeXt's processor warps from this size on, and crops the middle of smaller ones.

_SQUARE_224 = {"height": 224, "width": 224}
_KINDS: Mapping[str, Mapping[str, Any]] = {
    "ViT": {"size": _SQUARE_224, "mean": _HALF, "std": _HALF, "resample": _BILINEAR},
    "Siglip": {"size": _SQUARE_224, "mean": _HALF, "std": _HALF, "resample": _BICUBIC},
    "DeiT": {
        "size": {"height": 256, "width": 256}, "crop": _SQUARE_224,
        "mean": _HALF, "std": _HALF, "resample": _BICUBIC,
    },
    "Bit": {
        "size": {"shortest_edge": 224}, "crop": _SQUARE_224,
        "mean": _CLIP_MEAN, "std": _CLIP_STD, "resample": _BICUBIC,
    },
    "CLIP": {
        "size": {"shortest_edge": 224}, "crop": _SQUARE_224,
        "mean": _CLIP_MEAN, "std": _CLIP_STD, "resample": _BICUBIC,
    },
    "MobileNetV1": {
        "size": {"shortest_edge": 256}, "crop": _SQUARE_224,
        "mean": _HALF, "std": _HALF, "resample": _BILINEAR,
    },
    "ConvNext": {
        "size": {"shortest_edge": _WARP_FROM}, "crop_pct": 224 / 256,
        "mean": _HALF, "std": _HALF, "resample": _BICUBIC,
    },
}  # fmt: skip
"""Image processors whose steps are resize, crop, rescale, normalise, with their defaults."""


@dataclass(frozen=True, slots=True)
class AudioSettings:
    """How a waveform becomes a model's input.

    Attributes:
        sampling_rate: of what the model hears, in hertz.
        normalize: whether each waveform gets mean 0 and variance 1.
    """

    sampling_rate: int
    normalize: bool


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """How an RGB image becomes a model's input; steps in the order of the attributes.

    Attributes:
        resize: `(height, width)`, or one number for the shortest edge; None leaves the size.
        resample: Pillow's number of the filter.
        crops: `(height, width)` of the middles that are cut out one after the other.
        rescale: what pixels (0 to 255) are multiplied with; None leaves them.
        mean, std: per channel; None where nothing is normalised.
        output_size: `(height, width)` of the model's input.
    """

    resize: tuple[int, int] | int | None
    resample: int
    crops: tuple[tuple[int, int], ...]
    rescale: float | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    output_size: tuple[int, int]


def read_audio_settings(path: Path) -> AudioSettings:
    """Return what the model directory at `path` says of waveforms.

    Raises:
        ExportError: it says nothing, or its feature extractor is of another kind.
        IntegrityError: the file is broken.
    """
    document = _read(path, "feature_extractor")
    kind = document.get("feature_extractor_type", _WAVEFORMS)
    rate = document.get("sampling_rate", 16_000)
    if kind != _WAVEFORMS or document.get("feature_size", 1) != 1:
        raise ExportError(
            f"The model's inputs are made by {kind}, which is not known here.",
            hint=f"Models that hear waveforms ({_WAVEFORMS}) are supported.",
        )
    if isinstance(rate, bool) or not isinstance(rate, int) or not 1000 <= rate <= 200_000:
        raise IntegrityError(f"{rate!r} is no sampling rate.", hint="Log the model again.")
    return AudioSettings(rate, document.get("do_normalize") is not False)


def read_image_settings(path: Path) -> ImageSettings:
    """Return what the model directory at `path` says of images.

    Raises:
        ExportError: it says nothing, its image processor is of another kind, or it makes images
            of varying sizes.
        IntegrityError: the file is broken.
    """
    document = _read(path, "image_processor")
    kind = _image_kind(document)
    try:
        return _image_settings(kind, _KINDS[kind], document)
    except (TypeError, ValueError, KeyError, ArithmeticError) as error:
        raise IntegrityError(
            f"The image processor's settings cannot be used: {error}", hint="Log the model again."
        ) from error


def model_frames(config: Mapping[str, Any], samples: int) -> int:
    """Return how many frames the convolutions of a waveform model make; 0 of too few samples."""
    for kernel, stride in zip(*_convolutions(config), strict=True):
        samples = (samples - kernel) // stride + 1 if samples >= kernel else 0
    return samples


def frame_stride(config: Mapping[str, Any]) -> int:
    """Return how many samples lie between two frames."""
    return math.prod(_convolutions(config)[1])


def fewest_samples(config: Mapping[str, Any]) -> int:
    """Return how many samples make one frame."""
    samples = 1
    for kernel, stride in reversed(list(zip(*_convolutions(config), strict=True))):
        samples = (samples - 1) * stride + kernel
    return samples


def _convolutions(config: Mapping[str, Any]) -> tuple[Sequence[int], Sequence[int]]:
    return config.get("conv_kernel") or _CONV_KERNEL, config.get("conv_stride") or _CONV_STRIDE


def _read(path: Path, part: str) -> dict[str, Any]:
    for name in PREPROCESSOR_FILES:
        file = path / name
        if not file.is_file():
            continue
        try:
            if file.stat().st_size > _MAX_JSON_BYTES:
                raise IntegrityError(f"{name} is larger than {_MAX_JSON_BYTES} bytes.")
            document = msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise IntegrityError(f"{name} is not a JSON object: {error}.") from error
        found = document.get(part)
        if isinstance(found, dict):
            return found
        if name == PREPROCESSOR_FILES[0]:
            return document
    raise ExportError(
        f"{path} has no {PREPROCESSOR_FILES[0]}.",
        hint="Give the Trainer the feature extractor or the image processor as "
        "`processing_class` so that it saves it.",
    )


def _image_kind(document: Mapping[str, Any]) -> str:
    named = document.get("image_processor_type") or document.get("feature_extractor_type") or ""
    kind = str(named).removesuffix("Fast")
    kind = kind.removesuffix("ImageProcessor").removesuffix("FeatureExtractor")
    if kind not in _KINDS or document.get("do_pad"):
        known = ", ".join(f"{one}ImageProcessor" for one in _KINDS)
        raise ExportError(
            f"The model's inputs are made by {named or 'an unnamed image processor'}"
            f"{' with padding' if document.get('do_pad') else ''}, which is not known here.",
            hint=f"Known image processors: {known}.",
        )
    return kind


def _image_settings(
    kind: str, defaults: Mapping[str, Any], document: Mapping[str, Any]
) -> ImageSettings:
    def said(key: str, default: Any) -> Any:
        value = document.get(key)
        return default if value is None else value

    size = _size(said("size", defaults["size"]), square="height" in defaults["size"])
    crop = _size(said("crop_size", defaults.get("crop", _SQUARE_224)), square=True)
    resize: tuple[int, int] | int | None = size if said("do_resize", True) else None
    crops: tuple[tuple[int, int], ...] = ()
    if kind == "ConvNext" and resize is not None:
        edge = size if isinstance(size, int) else size[0]
        resize = (edge, edge)
        if edge < _WARP_FROM:
            resize, crops = (
                int(edge / float(said("crop_pct", defaults["crop_pct"]))),
                ((edge, edge),),
            )
    if said("do_center_crop", "crop" in defaults):
        crops = (*crops, (crop, crop) if isinstance(crop, int) else crop)
    output = crops[-1] if crops else resize
    if not isinstance(output, tuple):
        raise ExportError(
            "The image processor makes images of varying sizes.",
            hint="Give it a height and a width, or let it crop the middle.",
        )
    normalize = said("do_normalize", True)
    return ImageSettings(
        resize=resize,
        resample=int(said("resample", defaults["resample"])),
        crops=crops,
        rescale=float(said("rescale_factor", 1 / 255)) if said("do_rescale", True) else None,
        mean=_three(said("image_mean", defaults["mean"])) if normalize else None,
        std=_three(said("image_std", defaults["std"])) if normalize else None,
        output_size=output,
    )


def _size(value: Any, *, square: bool) -> tuple[int, int] | int:
    """Return `(height, width)` or the shortest edge, of how transformers writes a size."""
    if isinstance(value, int):
        return (value, value) if square else value
    if isinstance(value, list | tuple):
        return int(value[0]), int(value[1])
    if value.get("shortest_edge") and not value.get("longest_edge"):
        return int(value["shortest_edge"])
    return int(value["height"]), int(value["width"])


def _three(value: Any) -> tuple[float, ...]:
    numbers = tuple(map(float, value)) if isinstance(value, list | tuple) else (float(value),) * 3
    if len(numbers) != 3:
        raise ValueError(f"{len(numbers)} channels")
    return numbers
