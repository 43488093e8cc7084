"""The whole road on one machine; `make demo` runs it."""
