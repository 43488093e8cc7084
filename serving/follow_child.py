"""`python -m serving.follow_child`: look where references point, again and again.

One JSON line a look: what a reference names now, or why that could not be found out. Lives in a
process of its own so that an SDK that hangs or leaks costs the server nothing.
"""

from __future__ import annotations

import argparse
import time

import msgspec

import registry
from serving.children import claim_stdout, die_with_parent


class Sighting(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a reference points.

    Attributes:
        reference: as it was given.
        pinned_name: `entity/project/collection:vN`; empty when it could not be found out.
        error: why not.
    """

    reference: str
    pinned_name: str = ""
    error: str = ""


def look(reference: str, settings: registry.Settings, hub: registry.Hub) -> Sighting:
    """Ask the server where `reference` points now."""
    try:
        version = registry.locate(reference, settings=settings, hub=hub)
    except registry.RegistryError as error:
        return Sighting(reference, error=error.message)
    return Sighting(reference, pinned_name=version.qualified_name)


def main() -> None:
    """Look at all references every `--interval` seconds, `--rounds` times."""
    parser = argparse.ArgumentParser(prog="serving.follow_child")
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--interval", type=float, required=True)
    parser.add_argument("--rounds", type=int, default=1800)
    parser.add_argument("references", nargs="+")
    arguments = parser.parse_args()
    die_with_parent(arguments.parent)
    settings = registry.Settings.from_environment()
    hub = registry.open_hub(settings)
    with claim_stdout() as messages:
        # Not for ever: the SDK's memory grows, and the parent starts a new child.
        for _ in range(arguments.rounds):
            for reference in arguments.references:
                line = msgspec.json.encode(look(reference, settings, hub)).decode()
                messages.write(line + "\n")
                messages.flush()
            time.sleep(arguments.interval)


if __name__ == "__main__":
    main()
