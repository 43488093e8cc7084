"""Artifacts, collections, aliases, lineage and registries."""
