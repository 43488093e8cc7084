"""An image file's bytes -> a model's input, as transformers' processors do it with Pillow."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np

from registry import ImageSettings
from serving.errors import InvalidInputError, LoadError, PayloadTooLargeError
from serving.tasks.protocol import Array

MAX_PIXELS = 50_000_000
"""Most pixels of an image, and of what resizing it makes."""

# Not whatever Pillow knows: some of its readers start other programs.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_HINT = f"{', '.join(_FORMATS)} files can be read."


def image_library() -> Any:
    """Return `PIL.Image`.

    Raises:
        LoadError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise LoadError(
            f"Models that see need Pillow: {error}", hint="Install runport[image]."
        ) from error
    return Image


def read_picture(content: bytes) -> Any:
    """Return an image as Pillow's, upright and in RGB.

    Raises:
        InvalidInputError: it is no image, of an unknown kind, or cut off.
        PayloadTooLargeError: it has more than `MAX_PIXELS`.
    """
    library = image_library()
    from PIL import ImageOps

    try:
        # The size stands in the header: pixels are decoded only when there are not too many.
        with library.open(io.BytesIO(content), formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise _too_large(image.width, image.height)
            return ImageOps.exif_transpose(image).convert("RGB")
    except (library.DecompressionBombError, library.DecompressionBombWarning) as error:
        raise PayloadTooLargeError("The image has too many pixels.") from error
    except PayloadTooLargeError:
        raise
    # Broken files make Pillow raise OSError, SyntaxError, ValueError, struct.error and more.
    except Exception as error:
        raise InvalidInputError("The image cannot be read.", hint=_HINT) from error


def pixel_values(image: Any, settings: ImageSettings) -> Array:
    """Return an RGB image as float32 of shape (3, height, width).

    Raises:
        PayloadTooLargeError: it is so long and thin that resizing would make too many pixels.
    """
    if settings.resize is not None:
        height, width = _resized(settings.resize, image.height, image.width)
        if height * width > MAX_PIXELS:
            raise _too_large(width, height)
        image = image.resize((width, height), resample=settings.resample)
    pixels: Array = np.moveaxis(np.array(image), -1, 0)
    for crop in settings.crops:
        pixels = _middle(pixels, crop)
    if settings.rescale is not None:
        pixels = (pixels.astype(np.float64) * settings.rescale).astype(np.float32)
    pixels = pixels.astype(np.float32, copy=False)
    if settings.mean is not None and settings.std is not None:
        mean, std = (
            np.array(one, np.float32)[:, None, None] for one in (settings.mean, settings.std)
        )
        pixels = (pixels - mean) / std
    return np.ascontiguousarray(pixels)


def _resized(wanted: tuple[int, int] | int, height: int, width: int) -> tuple[int, int]:
    if isinstance(wanted, tuple):
        return wanted
    longest = int(wanted * max(height, width) / min(height, width))
    return (longest, wanted) if width <= height else (wanted, longest)


def _middle(pixels: Array, size: tuple[int, int]) -> Array:
    """Cut the middle out; what the image lacks is black."""
    for axis, wanted in enumerate(size, start=1):
        have = pixels.shape[axis]
        top = (have - wanted) // 2
        if top < 0:
            # The odd row of padding goes where transformers puts it.
            before = math.ceil((wanted - have) / 2)
            spare = [(0, 0)] * pixels.ndim
            spare[axis] = (before, wanted - have - before)
            pixels = np.pad(pixels, spare)
            top = 0
        pixels = pixels.take(range(top, top + wanted), axis=axis)
    return pixels


def _too_large(width: int, height: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(
        f"The image would have {width} by {height} pixels, more than {MAX_PIXELS}.",
        hint="Send a smaller image.",
    )
