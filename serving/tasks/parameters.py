"""Reading the parameters of a request; every mistake is told to the client."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from serving.errors import InvalidInputError


def check_known(parameters: Mapping[str, object], known: Collection[str]) -> None:
    """Raise InvalidInputError if there is a parameter that the task does not take."""
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise InvalidInputError(
            f"{unknown[0][:64]} is no parameter of this task.",
            hint=f"It takes {', '.join(sorted(known))}.",
        )


def whole_number(
    parameters: Mapping[str, object], name: str, default: int | None, *, least: int = 1
) -> int | None:
    """Return a whole number of at least `least`; None and a missing one give the default.

    Raises:
        InvalidInputError: it is anything else.
    """
    value = parameters.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**31:
        raise InvalidInputError(
            f"{name} is not a whole number from {least} on.", hint="Leave it out for the default."
        )
    return value


def truth(parameters: Mapping[str, object], name: str, default: bool) -> bool:
    """Return true or false; None and a missing one give the default.

    Raises:
        InvalidInputError: it is anything else.
    """
    value = parameters.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise InvalidInputError(f"{name} is neither true nor false.")
    return value


def choice(
    parameters: Mapping[str, object], name: str, default: str, allowed: Collection[str]
) -> str:
    """Return one of the allowed words, in lower case; None and a missing one give the default.

    Raises:
        InvalidInputError: it is anything else.
    """
    value = parameters.get(name)
    if value is None:
        return default
    if not isinstance(value, str) or value.lower() not in allowed:
        raise InvalidInputError(f"{name} is not known.", hint=f"Use one of {', '.join(allowed)}.")
    return value.lower()


def texts(value: object, name: str) -> list[str]:
    """Return a list of texts with at least one in it.

    Raises:
        InvalidInputError: it is anything else.
    """
    if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
        raise InvalidInputError(f"{name} is not a list of texts with at least one in it.")
    return value
