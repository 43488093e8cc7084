"""What the backend's operator decides; built by the command line and by tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class BackendSettings:
    """Everything that shapes one backend process.

    Attributes:
        data_dir: folder of database, blobs, credentials; created with mode 0700.
        host: loopback address to listen on.
        port: TCP port; 0 lets the system choose one.
        entity: the single user's name, the default W&B entity.
        url_ttl_s: life of a signed upload or download URL.
        heartbeat_timeout_s: silence after which a running run counts as crashed.
        replaced_grace_s: how long a replaced file can still be fetched by its old URL.
        max_document_bytes: largest GraphQL request body.
        max_stream_bytes: largest `file_stream` body, compressed or inflated.
    """

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 8200
    entity: str = "local"
    url_ttl_s: int = 24 * 3600
    heartbeat_timeout_s: float = 300.0
    replaced_grace_s: float = 600.0
    max_document_bytes: int = 64 * 1024 * 1024
    max_stream_bytes: int = 512 * 1024 * 1024
