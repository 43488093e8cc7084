"""`python -m registry`, the same program as `registry`."""

from registry.cli import main

main()
