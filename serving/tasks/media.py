"""The bytes of a file that a request brings: raw, or as base64 in JSON. Nothing is fetched."""

from __future__ import annotations

import base64
import binascii

from serving.errors import InvalidInputError

_HINT = "Send the file's bytes as the body, or base64 of them as an input."


def file_bytes(item: object) -> bytes:
    """Return the bytes of a file.

    Args:
        item: bytes, base64 text, or a `data:…;base64,` URI.

    Raises:
        InvalidInputError: it is none of these, a URL for example, or empty.
    """
    content = item if isinstance(item, bytes) else _decoded(item)
    if not content:
        raise InvalidInputError("The file is empty.", hint=_HINT)
    return content


def _decoded(item: object) -> bytes:
    if not isinstance(item, str):
        raise InvalidInputError("An input is no file.", hint=_HINT)
    if "://" in item[:32]:
        raise InvalidInputError("An input is a URL; this server fetches nothing.", hint=_HINT)
    if item.startswith("data:"):
        head, comma, item = item.partition(",")
        if not comma or not head.endswith(";base64"):
            raise InvalidInputError("An input is a data URI without base64.", hint=_HINT)
    try:
        # Encoders of mail break lines, and that alone is forgiven.
        return base64.b64decode("".join(item.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInputError("An input is no base64.", hint=_HINT) from error
