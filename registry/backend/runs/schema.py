"""Tables of projects, runs and what belongs to a run."""

from __future__ import annotations

from registry.backend.database import Migration

MIGRATIONS = (
    Migration(
        "runs-001",
        """
        CREATE TABLE projects (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            entity TEXT NOT NULL,
            name TEXT NOT NULL,
            description TEXT,
            created_at TEXT NOT NULL,
            UNIQUE (entity, name)
        ) STRICT;
        CREATE TABLE runs (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            project_id INTEGER NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
            name TEXT NOT NULL,
            display_name TEXT NOT NULL,
            state TEXT NOT NULL DEFAULT 'running',
            config TEXT NOT NULL DEFAULT '{}',
            summary TEXT NOT NULL DEFAULT '{}',
            tags TEXT NOT NULL DEFAULT '[]',
            run_group TEXT,
            job_type TEXT,
            notes TEXT,
            description TEXT,
            commit_sha TEXT,
            repository TEXT,
            program TEXT,
            host TEXT,
            sweep TEXT,
            history_keys TEXT NOT NULL DEFAULT '{}',
            exit_code INTEGER,
            stop_requested INTEGER NOT NULL DEFAULT 0,
            created_at TEXT NOT NULL,
            updated_at TEXT NOT NULL,
            heartbeat_at TEXT NOT NULL,
            UNIQUE (project_id, name)
        ) STRICT;
        CREATE TABLE run_lines (
            run_id INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
            stream TEXT NOT NULL,
            number INTEGER NOT NULL,
            step INTEGER,
            content TEXT NOT NULL,
            PRIMARY KEY (run_id, stream, number)
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX run_lines_by_step ON run_lines (run_id, stream, step);
        CREATE TABLE run_files (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            run_id INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
            name TEXT NOT NULL,
            sha256 TEXT NOT NULL,
            md5 TEXT NOT NULL,
            size_bytes INTEGER NOT NULL,
            updated_at TEXT NOT NULL,
            UNIQUE (run_id, name)
        ) STRICT;
        CREATE INDEX run_files_by_blob ON run_files (sha256);
        CREATE TABLE alerts (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            run_id INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
            title TEXT NOT NULL,
            text TEXT NOT NULL,
            severity TEXT NOT NULL,
            created_at TEXT NOT NULL
        ) STRICT;
        """,
    ),
)
