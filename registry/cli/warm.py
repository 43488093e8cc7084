"""`registry pull` of pinned versions that are cached, answered without the command-line library.

Loading it takes longer than the answer. Whatever is not exactly `pull [-q] NAME...` with all
names pinned and cached is left to `registry.cli.pull`, which then prints what there is to say.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

_QUIET = frozenset({"-q", "--quiet"})


def answer(arguments: Sequence[str]) -> bool:
    """Print the answer if it is in the cache; return whether it was.

    Args:
        arguments: the command line without the program's name.
    """
    if arguments[:1] != ["pull"]:
        return False
    names = [word for word in arguments[1:] if word not in _QUIET]
    if not names or any(name.startswith("-") for name in names):
        return False
    import gc

    gc.disable()  # Imports make much and drop nothing; collecting meanwhile takes 5 % of the time.
    try:
        return _answer_from_cache(names, quiet=len(names) < len(arguments) - 1)
    finally:
        gc.enable()


def _answer_from_cache(names: Sequence[str], *, quiet: bool) -> bool:
    from registry.cli.words import describe
    from registry.config import Settings
    from registry.errors import RegistryError
    from registry.pull import pull_cached

    found = []
    try:
        settings = Settings.from_environment()
        for name in names:
            pulled = pull_cached(name, settings)
            if pulled is None:
                return False
            found.append(pulled)
    except RegistryError:
        return False  # Comes up again, and is reported, where the answer is looked for in full.
    if not quiet:
        words = [line for pulled in found for line in describe(pulled)]
        sys.stderr.write("\n".join([*words, ""]))
    sys.stdout.write("".join(f"{pulled.path}\n" for pulled in found))
    return True
