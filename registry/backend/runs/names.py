"""Names that the server makes for runs, and names that it accepts for their files."""

from __future__ import annotations

import secrets

from registry.backend.graphql.errors import OperationError

MAX_FILE_NAME_BYTES = 1024

_ADJECTIVES = (
    "amber ancient autumn bold brisk calm clear cosmic crimson crisp dazzling deep eager early "
    "earnest electric fast fearless feasible firm fresh gentle giddy glad golden graceful green "
    "happy hardy icy jolly kind lively logical lucky major mellow misty noble olive patient "
    "pleasant polar proud quiet rare royal rural scarlet sandy serene silver smooth snowy solar "
    "stellar still sunny swift tender vivid warm wild wise young zesty"
).split()
_NOUNS = (
    "aardvark bird breeze brook bush butterfly cloud cosmos darkness dawn deluge dew disco donkey "
    "dragon dream dust eon feather field fire firefly flower fog forest frog frost galaxy glade "
    "glitter grass haze heron hill jazz lake leaf meadow moon morning mountain night oath oxygen "
    "paper pine plant pond pyramid rain resonance river sea serenity shadow shape sky smoke snow "
    "sound spaceship star sun sunset surf thunder tree valley violet voice water waterfall wave "
    "wildflower wind wood yogurt"
).split()


def display_name(number: int) -> str:
    """Return a readable name such as `brisk-heron-7` for the project's `number`th run."""
    return f"{secrets.choice(_ADJECTIVES)}-{secrets.choice(_NOUNS)}-{number}"


def checked_file_name(name: object) -> str:
    """Return `name` if it stays beneath the folder into which a client would download it.

    Raises:
        OperationError: absolute, with empty, `.` or `..` parts, backslashes or NUL, or too long.
    """
    text = name if isinstance(name, str) else ""
    parts = text.split("/")
    escapes = any(part in ("", ".", "..") for part in parts) or set(text) & set("\\\0")
    if escapes or len(text.encode("utf-8", "replace")) > MAX_FILE_NAME_BYTES:
        raise OperationError(f"Invalid file name {text[:80]!r}.")
    return text
