from __future__ import annotations

import pytest

from registry.errors import AuthError, NotFoundError, UnavailableError
from registry.sdk_errors import translate


class CommError(Exception):
    """Named as the SDK's."""


class AuthenticationError(CommError):
    """Named as the SDK's."""


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (CommError("artifact membership 'x:v9' not found in 'e/p'"), NotFoundError),
        (CommError("project 'p' not found under entity 'e'"), NotFoundError),
        (ValueError("Unable to parse 'ArtifactTypes' response data"), NotFoundError),
        (CommError("HTTP 401: invalid key"), AuthError),
        (CommError("You do not have permission to add the alias"), AuthError),
        (AuthenticationError("bad"), AuthError),
        (AuthenticationError("the process did not respond in time"), UnavailableError),
        (AuthenticationError("dial tcp: connection refused"), UnavailableError),
        (TimeoutError(), UnavailableError),
        (CommError("HTTP 500"), UnavailableError),
    ],
)  # fmt: skip
def test_the_sdks_exceptions_become_ours(error: Exception, kind: type[Exception]) -> None:
    translated = translate(error, "look up x")
    assert type(translated) is kind
    assert "look up x" in translated.message
    assert translated.hint


def test_our_own_errors_pass() -> None:
    ours = NotFoundError("x")
    assert translate(ours, "y") is ours
