"""Files as bodies: what Hugging Face's client sends to models that hear or see."""

from __future__ import annotations

from serving.dialects.huggingface import HuggingFaceRequest

FILE_KINDS = {
    "audio-classification": "audio",
    "automatic-speech-recognition": "audio",
    "image-classification": "image",
}
"""Tasks whose inputs are files, and of which kind."""


def file_request(body: bytes) -> HuggingFaceRequest:
    """Return the request that a file alone is: one input, no parameters."""
    return HuggingFaceRequest([body], {}, single=True)
