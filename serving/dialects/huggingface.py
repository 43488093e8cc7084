"""The shape of Hugging Face's inference API: `{"inputs": …, "parameters": {…}}`.

Facts about the client come from huggingface_hub's own requests (see docs/design.md). It reads the
first element of a text-classification answer as the list of labels, so that answers are nested
also for a single text; a flat list would lose all labels but one without an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from serving.dialects.strict_json import decode_object
from serving.errors import (
    InvalidInputError,
    InvalidRequestError,
    PayloadTooLargeError,
    ServingError,
)
from serving.generation.protocol import Piece

ALWAYS_LISTS = frozenset({"text-classification"})
"""Tasks whose answer has one more list around it, also for a single input."""

FLAT_LISTS = frozenset({"summarization", "translation", "text2text-generation"})
"""Tasks that answer one input with a list: of several inputs with one text each, it is one list."""

# `options` steers Hugging Face's own hosting (wait_for_model, use_cache), not the model.
_IGNORED = frozenset({"options", "stream"})
_HINT = 'Send {"inputs": "some text"} or {"inputs": ["one", "two"]}.'


@dataclass(frozen=True, slots=True)
class HuggingFaceRequest:
    """A decoded request.

    Attributes:
        items: inputs for the task, at least one.
        parameters: for the task; it refuses those it does not know.
        single: whether one input was sent outside a list.
        stream: whether its answer is to be told token by token.
    """

    items: list[Any]
    parameters: dict[str, Any]
    single: bool
    stream: bool = False


def decode(
    body: bytes, *, max_items: int, max_characters: int, max_depth: int
) -> HuggingFaceRequest:
    """Decode a request body.

    Raises:
        InvalidRequestError: no JSON object, no `inputs`, or of another shape.
        InvalidInputError: an empty list of inputs.
        PayloadTooLargeError: too many items or characters.
    """
    document = decode_object(body, max_depth=max_depth, max_characters=max_characters)
    if "inputs" not in document:
        raise InvalidRequestError('The body has no "inputs".', hint=_HINT)
    inputs = document["inputs"]
    single = not isinstance(inputs, list)
    items = [inputs] if single else inputs
    if not items:
        raise InvalidInputError('"inputs" is an empty list.', hint=_HINT)
    if len(items) > max_items:
        raise PayloadTooLargeError(
            f"The request holds {len(items)} inputs, at most {max_items} are accepted.",
            hint="Split it into several requests.",
        )
    for item in items:
        if not isinstance(item, str | dict):
            raise InvalidRequestError(
                f'"inputs" holds {_json_name(item)} where a text or an object belongs.', hint=_HINT
            )
    parameters = _parameters(document)
    stream = document.get("stream", False)
    if stream not in (True, False, None):
        raise InvalidRequestError('"stream" is neither true nor false.')
    if not stream:
        return HuggingFaceRequest(items, parameters, single)
    if len(items) > 1:
        raise InvalidRequestError("One input is streamed at a time.", hint=_HINT)
    # Each event tells its token with its probability.
    return HuggingFaceRequest(items, {**parameters, "details": True}, single, stream=True)


def shape(task: str, values: Sequence[Any], *, single: bool) -> Any:
    """Return the answer for `values`, one per input in their order, as the client reads it."""
    if single and task not in ALWAYS_LISTS:
        return values[0]
    if task in FLAT_LISTS and not single and all(len(value) == 1 for value in values):
        return [value[0] for value in values]
    return list(values)


def token_event(index: int, piece: Piece, final: Mapping[str, Any] | None) -> bytes:
    """Return the server-sent event of a token, in the shape of text-generation-inference.

    Args:
        index: of the token in the answer, from 1 on.
        piece: the token.
        final: `generated_text` and `details`, of the last token.
    """
    token = {
        "id": piece.token,
        "text": piece.text,
        "logprob": piece.logprob,
        "special": piece.special,
    }
    ending = final or {"generated_text": None, "details": None}
    return _event({"index": index, "token": token, **ending})


def error_event(error: ServingError) -> bytes:
    """Return the server-sent event that ends a stream which broke off."""
    return _event({"error": error.message, "error_type": error.error_type, "hint": error.hint})


def _event(document: Mapping[str, Any]) -> bytes:
    return b"data:" + msgspec.json.encode(document) + b"\n\n"


def _parameters(document: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters; some tasks' clients send theirs at the top level."""
    parameters = document.get("parameters")
    if parameters is None:
        parameters = {}
    if not isinstance(parameters, dict):
        raise InvalidRequestError(
            f'"parameters" is {_json_name(parameters)} and no object.',
            hint='Send for example {"inputs": "some text", "parameters": {"top_k": 1}}.',
        )
    top_level = {
        name: value
        for name, value in document.items()
        if name not in _IGNORED and name not in {"inputs", "parameters"}
    }
    return top_level | parameters


def _json_name(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "a list" if isinstance(value, list) else "an object"
