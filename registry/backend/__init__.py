"""Embedded, single-user, loopback server that speaks the W&B SDK's protocol.

    server -> app -> routes -> graphql executor -> parts (runs, artifacts, pages)
                                                -> database, blobs, signing

A *part* (`registry.backend.parts.Part`) brings its tables, GraphQL fields, upload kinds and
routes; the frame knows none of them by name. Not a replacement for W&B: one user, one machine.
"""
