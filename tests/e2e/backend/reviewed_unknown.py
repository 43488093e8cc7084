"""GraphQL names that SDKs use, the backend does not know, and somebody has looked at.

An unknown field gives null and an unknown argument is dropped. That is right only where it was
considered: each name here has its reason. Anything else makes a test fail, so that a new SDK's
drift shows.
"""

from __future__ import annotations

from collections.abc import Mapping

FIELDS: Mapping[str, str] = {}

ARGUMENTS: Mapping[str, str] = {
    "Mutation.createArtifact(clientMutationId)": "Relay's bookkeeping; always null.",
    "Mutation.createArtifact(labels)": "superseded by tags; wandb-core always sends null.",
    "Mutation.createArtifactFiles(clientMutationId)": "Relay's bookkeeping; always null.",
    "Mutation.createArtifactFiles(cloudRegionID)": "there is one region; always null.",
}


def unreviewed(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return the names in the backend's counts that are on no list."""
    fields = [name for name in counts["fields"] if name not in FIELDS]
    arguments = [name for name in counts["arguments"] if name not in ARGUMENTS]
    return fields + arguments
