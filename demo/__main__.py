"""`python -m demo [--keep]`: the whole road on one machine, with the commands a user types."""

from __future__ import annotations

import argparse
import sys

from demo.processes import StepError
from demo.road import walk


def main() -> int:
    """Walk the road; return 0, or 1 when a step failed."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument(
        "--keep", action="store_true", help="leave the backend and the server running"
    )
    try:
        walk(keep=parser.parse_args().keep)
    except StepError as error:
        print(f"\nThe demo stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
