"""Decode JSON bodies strictly: what is not plain, finite, shallow JSON in UTF-8 is refused.

Duplicate keys in an object: the last one wins, as in most parsers; nothing here depends on it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from serving.errors import InvalidRequestError, PayloadTooLargeError

_INTEGERS = (-(2**63), 2**64 - 1)
"""What the frames to the workers can carry."""

_HINT = 'Send a JSON object such as {"inputs": "some text"}.'


def decode_object(body: bytes, *, max_depth: int, max_characters: int) -> dict[str, Any]:
    """Return the JSON object in `body`.

    Raises:
        InvalidRequestError: not UTF-8, not JSON (NaN and infinity are none), half a surrogate
            pair, numbers out of range, nested deeper than `max_depth`, or no object.
        PayloadTooLargeError: more than `max_characters` in all strings together.
    """
    try:
        document = msgspec.json.decode(body)
    except UnicodeDecodeError as error:
        raise InvalidRequestError("The body is not UTF-8.", hint=_HINT) from error
    except RecursionError as error:
        raise _too_deep(max_depth) from error
    except msgspec.MsgspecError as error:
        raise InvalidRequestError(f"The body is not valid JSON: {error}", hint=_HINT) from error
    if not isinstance(document, dict):
        raise InvalidRequestError("The body is JSON but no object.", hint=_HINT)
    characters = _measure(document, max_depth)
    if characters > max_characters:
        raise PayloadTooLargeError(
            f"The request holds {characters} characters, at most {max_characters} are accepted.",
            hint="Split it into several requests.",
        )
    return document


def _measure(document: dict[str, Any], max_depth: int) -> int:
    """Return the characters of all strings; raises when nested too deeply or out of range."""
    characters = 0
    level: list[Any] = [document]
    for _ in range(max_depth):
        below: list[Any] = []
        for value in level:
            if isinstance(value, str):
                characters += len(value)
            elif isinstance(value, list):
                below.extend(value)
            elif isinstance(value, dict):
                characters += sum(map(len, value))
                below.extend(value.values())
            elif isinstance(value, int) and not _INTEGERS[0] <= value <= _INTEGERS[1]:
                raise InvalidRequestError(
                    "The body holds an integer of more than 64 bits.", hint="Send a smaller number."
                )
        if not below:
            return characters
        level = below
    raise _too_deep(max_depth)


def _too_deep(max_depth: int) -> InvalidRequestError:
    return InvalidRequestError(
        f"The body is nested deeper than {max_depth} levels.", hint="Send a flatter document."
    )
