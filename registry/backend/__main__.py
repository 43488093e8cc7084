"""`python -m registry.backend`: run the server in the foreground."""

from __future__ import annotations

import sys

from registry.backend.server import main

if __name__ == "__main__":
    sys.exit(main())
