"""The run half as the frame sees it."""

from __future__ import annotations

from registry.backend.parts import Part
from registry.backend.runs import absent, account, console, files, listing, projects, read, write
from registry.backend.runs.filestream import file_stream
from registry.backend.runs.schema import MIGRATIONS

RUNS = Part(
    name="runs",
    migrations=MIGRATIONS,
    field_sets=(
        account.fields,
        projects.fields,
        listing.fields,
        read.fields,
        write.fields,
        files.fields,
        console.fields,
        absent.fields,
    ),
    blob_references=("SELECT sha256 FROM run_files",),
    upload_kinds={files.UPLOAD_KIND: files.record_run_file},
    routes=(file_stream,),
    features=("LARGE_FILENAMES", "CLIENT_IDS", "MARK_RUN_FILES_UPLOADED", "FILESTREAM_GZIP"),
)
