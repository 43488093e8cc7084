"""Tables of artifacts. A version that is being written is `PENDING` and has no number."""

from __future__ import annotations

from registry.backend.database import Migration

MIGRATIONS = (
    Migration(
        "artifacts-001",
        """
        CREATE TABLE artifact_types (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            project_id INTEGER NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
            name TEXT NOT NULL,
            description TEXT,
            created_at TEXT NOT NULL,
            UNIQUE (project_id, name)
        ) STRICT;

        -- A sequence holds versions of its own; a portfolio holds links to versions.
        CREATE TABLE artifact_collections (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            project_id INTEGER NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
            type_id INTEGER NOT NULL REFERENCES artifact_types (id),
            kind TEXT NOT NULL CHECK (kind IN ('SEQUENCE', 'PORTFOLIO')),
            name TEXT NOT NULL,
            description TEXT,
            digest_algorithm TEXT NOT NULL DEFAULT 'MANIFEST_MD5',
            next_version INTEGER NOT NULL DEFAULT 0,
            created_at TEXT NOT NULL,
            updated_at TEXT NOT NULL,
            UNIQUE (project_id, name)
        ) STRICT;
        CREATE INDEX artifact_collections_by_type ON artifact_collections (type_id);

        CREATE TABLE artifacts (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            sequence_id INTEGER NOT NULL REFERENCES artifact_collections (id) ON DELETE CASCADE,
            version_index INTEGER,
            state TEXT NOT NULL DEFAULT 'PENDING' CHECK (state IN ('PENDING', 'COMMITTED')),
            digest TEXT NOT NULL,
            digest_algorithm TEXT NOT NULL,
            description TEXT,
            metadata TEXT,
            ttl_s INTEGER,
            history_step INTEGER,
            requested_aliases TEXT NOT NULL DEFAULT '[]',
            distributed_id TEXT,
            created_by_run_id INTEGER REFERENCES runs (id) ON DELETE SET NULL,
            size_bytes INTEGER NOT NULL DEFAULT 0,
            file_count INTEGER NOT NULL DEFAULT 0,
            manifest_sha256 TEXT,
            created_at TEXT NOT NULL,
            updated_at TEXT NOT NULL,
            UNIQUE (sequence_id, version_index)
        ) STRICT;
        CREATE INDEX artifacts_by_digest ON artifacts (sequence_id, digest);
        CREATE INDEX artifacts_by_state ON artifacts (state, updated_at);
        CREATE INDEX artifacts_by_run ON artifacts (created_by_run_id);
        CREATE INDEX artifacts_by_manifest ON artifacts (manifest_sha256);

        CREATE VIEW artifact_details AS
            SELECT artifacts.*, artifact_collections.name AS sequence_name,
                artifact_collections.project_id, artifact_types.name AS type_name
            FROM artifacts
            JOIN artifact_collections ON artifact_collections.id = artifacts.sequence_id
            JOIN artifact_types ON artifact_types.id = artifact_collections.type_id;

        CREATE TABLE artifact_client_ids (
            client_id TEXT PRIMARY KEY,
            artifact_id INTEGER NOT NULL REFERENCES artifacts (id) ON DELETE CASCADE
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX artifact_client_ids_by_artifact ON artifact_client_ids (artifact_id);

        CREATE TABLE artifact_memberships (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            collection_id INTEGER NOT NULL REFERENCES artifact_collections (id) ON DELETE CASCADE,
            artifact_id INTEGER NOT NULL REFERENCES artifacts (id) ON DELETE CASCADE,
            version_index INTEGER NOT NULL,
            created_at TEXT NOT NULL,
            UNIQUE (collection_id, artifact_id),
            UNIQUE (collection_id, version_index)
        ) STRICT;
        CREATE INDEX artifact_memberships_by_artifact ON artifact_memberships (artifact_id);

        CREATE TABLE artifact_aliases (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            collection_id INTEGER NOT NULL REFERENCES artifact_collections (id) ON DELETE CASCADE,
            membership_id INTEGER NOT NULL REFERENCES artifact_memberships (id) ON DELETE CASCADE,
            alias TEXT NOT NULL,
            UNIQUE (collection_id, alias)
        ) STRICT;
        CREATE INDEX artifact_aliases_by_membership ON artifact_aliases (membership_id);

        CREATE TABLE artifact_tags (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            artifact_id INTEGER NOT NULL REFERENCES artifacts (id) ON DELETE CASCADE,
            name TEXT NOT NULL,
            UNIQUE (artifact_id, name)
        ) STRICT;

        CREATE TABLE artifact_collection_tags (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            collection_id INTEGER NOT NULL REFERENCES artifact_collections (id) ON DELETE CASCADE,
            name TEXT NOT NULL,
            UNIQUE (collection_id, name)
        ) STRICT;

        -- Files of committed versions. `sha256` is null for references.
        CREATE TABLE artifact_entries (
            artifact_id INTEGER NOT NULL REFERENCES artifacts (id) ON DELETE CASCADE,
            path TEXT NOT NULL,
            digest TEXT NOT NULL,
            algorithm TEXT NOT NULL,
            size_bytes INTEGER,
            ref TEXT,
            birth_artifact_id TEXT,
            extra TEXT NOT NULL DEFAULT '{}',
            sha256 TEXT,
            PRIMARY KEY (artifact_id, path)
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX artifact_entries_by_digest ON artifact_entries (digest, algorithm);
        CREATE INDEX artifact_entries_by_blob ON artifact_entries (sha256);

        -- Manifests of pending versions; the row is gone once the version is committed.
        CREATE TABLE artifact_manifests (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            artifact_id INTEGER NOT NULL REFERENCES artifacts (id) ON DELETE CASCADE,
            base_artifact_id INTEGER,
            kind TEXT NOT NULL,
            md5 TEXT,
            sha256 TEXT
        ) STRICT;
        CREATE INDEX artifact_manifests_by_artifact ON artifact_manifests (artifact_id);
        CREATE INDEX artifact_manifests_by_blob ON artifact_manifests (sha256);

        -- Files that arrived, or were found, for a pending version: they keep blobs alive.
        CREATE TABLE artifact_uploads (
            artifact_id INTEGER NOT NULL REFERENCES artifacts (id) ON DELETE CASCADE,
            algorithm TEXT NOT NULL,
            digest TEXT NOT NULL,
            sha256 TEXT NOT NULL,
            size_bytes INTEGER NOT NULL,
            PRIMARY KEY (artifact_id, algorithm, digest)
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX artifact_uploads_by_digest ON artifact_uploads (digest, algorithm);
        CREATE INDEX artifact_uploads_by_blob ON artifact_uploads (sha256);

        CREATE TABLE artifact_multiparts (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            artifact_id INTEGER NOT NULL REFERENCES artifacts (id) ON DELETE CASCADE,
            algorithm TEXT NOT NULL,
            digest TEXT NOT NULL,
            UNIQUE (artifact_id, algorithm, digest)
        ) STRICT;
        CREATE TABLE artifact_parts (
            multipart_id INTEGER NOT NULL REFERENCES artifact_multiparts (id) ON DELETE CASCADE,
            number INTEGER NOT NULL,
            md5 TEXT NOT NULL,
            sha256 TEXT,
            size_bytes INTEGER,
            PRIMARY KEY (multipart_id, number)
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX artifact_parts_by_blob ON artifact_parts (sha256);

        CREATE TABLE artifact_lineage (
            run_id INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
            artifact_id INTEGER NOT NULL REFERENCES artifacts (id) ON DELETE CASCADE,
            direction TEXT NOT NULL CHECK (direction IN ('INPUT', 'OUTPUT')),
            used_as TEXT,
            created_at TEXT NOT NULL,
            PRIMARY KEY (run_id, direction, artifact_id)
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX artifact_lineage_by_artifact ON artifact_lineage (artifact_id, direction);

        CREATE TABLE artifact_registries (
            project_id INTEGER PRIMARY KEY REFERENCES projects (id) ON DELETE CASCADE,
            access TEXT NOT NULL DEFAULT 'PRIVATE',
            allow_all_types INTEGER NOT NULL DEFAULT 1,
            updated_at TEXT NOT NULL
        ) STRICT;
        """,
    ),
)

BLOB_REFERENCES = (
    "SELECT sha256 FROM artifact_entries",
    "SELECT sha256 FROM artifact_uploads",
    "SELECT sha256 FROM artifact_parts",
    "SELECT sha256 FROM artifact_manifests",
    "SELECT manifest_sha256 FROM artifacts",
)
