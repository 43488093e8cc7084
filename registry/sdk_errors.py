"""The SDK's exceptions, as errors of our own tree.

The SDK wraps nearly everything in `CommError` and leaves the cause in the text
or in `exc`, so that both have to be read. It is recognised by class name: this
module imports no SDK.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from registry.errors import AuthError, NotFoundError, RegistryError, UnavailableError

_AUTH_WORDS = (
    "401", "403", "permission", "unauthorized", "not logged in", "api key", "api_key",
    "no authentication", "relogin", "wandb login", "forbidden",
)  # fmt: skip
_LATE_WORDS = ("timed out", "timeout", "did not respond", "deadline exceeded")
_NETWORK_WORDS = ("connection refused", "dial tcp", "no such host", "network", "unreachable")
_MISSING_WORDS = ("not found", "could not find", "404", "does not exist", "unable to parse")
_NETWORK_HINT = "Is the W&B server reachable? Cached versions work with --offline."
_LOGIN_HINT = "Run `wandb login`, or set WANDB_API_KEY (and WANDB_BASE_URL for your own server)."


@contextmanager
def translated(action: str) -> Iterator[None]:
    """Turn what the SDK raises in the block into errors of our tree; see `translate`."""
    try:
        yield
    except Exception as error:
        raise translate(error, action) from error


def translate(error: Exception, action: str) -> RegistryError:
    """Return the error of our tree that says what the SDK's exception means.

    Args:
        error: what the SDK raised; an error of our own is returned as it is.
        action: what was being done, for the message: `look up x/y:v0`.
    """
    if isinstance(error, RegistryError):
        return error
    text = _one_line(str(error))
    lowered = text.lower()
    names = {cls.__name__ for cls in type(error).__mro__}
    if _is_timeout(error, lowered):
        return UnavailableError(
            f"Could not {action}: no answer in time.", hint="Try again, or work with --offline."
        )
    if any(word in lowered for word in _NETWORK_WORDS):
        return UnavailableError(f"Could not {action}: {text}", hint=_NETWORK_HINT)
    # The SDK calls a server that is away an AuthenticationError too, so this comes last.
    if "AuthenticationError" in names or any(word in lowered for word in _AUTH_WORDS):
        return AuthError(f"Could not {action}: {text}", hint=_LOGIN_HINT)
    if any(word in lowered for word in _MISSING_WORDS):
        return NotFoundError(
            f"Could not {action}: {text}", hint="`registry list` shows what there is."
        )
    return UnavailableError(f"Could not {action}: {text}", hint=_NETWORK_HINT)


def _is_timeout(error: Exception, lowered: str) -> bool:
    return isinstance(error, TimeoutError) or any(word in lowered for word in _LATE_WORDS)


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line[:300] or "no reason was given"
