"""A folder on this machine, taken into the cache like a version from a server.

The files are copied and hashed, so that what is loaded later is what was looked at.
"""

from __future__ import annotations

import os
from pathlib import Path

from registry.content import Selection, check_content, plan_files
from registry.errors import NotFoundError
from registry.pulled import PulledVersion
from registry.store import Store
from registry.store.blobs import sha256_of
from registry.store.durable import storage_errors
from registry.store.snapshots import build_snapshot, snapshot_digest
from registry.versions import ArtifactVersion, Digest, FileEntry


def take_in_folder(store: Store, folder: Path, selection: Selection) -> PulledVersion:
    """Return the folder's files as a version called `local/local/<name>:local`.

    Args:
        store: where the copies go.
        folder: with a model in it; links that leave it are not followed.
        selection: which files.

    Raises:
        NotFoundError: there is no such folder.
        UnsafeContentError: it holds what Runport does not touch.
        StorageError: it cannot be read, or the copies cannot be written.
    """
    folder = folder.expanduser().absolute()
    if not folder.is_dir():
        raise NotFoundError(f"There is no folder {folder}.", hint="Name a folder with a model.")
    plan = plan_files(str(folder), folder_entries(folder), selection)
    if not plan.wanted:
        raise NotFoundError(
            f"{folder} holds no model files.",
            hint="Links are not followed: copy a Hugging Face cache folder with `cp -rL` first.",
        )
    files: dict[str, str] = {}
    sizes: dict[str, int] = {}
    with store.claims.pulling(entry.size_bytes for entry in plan.wanted):
        for entry in plan.wanted:
            check_content(str(folder), entry.path, folder / entry.path)
            files[entry.path], sizes[entry.path] = _take(store, folder / entry.path, entry)
        digest, path = build_snapshot(store.layout, files)
    stored = tuple(
        FileEntry(name, sizes[name], Digest("sha256", sha256)) for name, sha256 in files.items()
    )
    version = ArtifactVersion(
        entity="local",
        project="local",
        collection=folder.name,
        version="local",
        digest=snapshot_digest(files)[:32],
        type="model",
        files=stored,
        size_bytes=sum(sizes.values()),
    )
    return PulledVersion(version, path, digest, False, 0, 0.0, plan.skipped)


def folder_entries(folder: Path) -> list[FileEntry]:
    """Return the regular files beneath a folder, sorted by path, without digests.

    Raises:
        StorageError: it cannot be read.
    """
    with storage_errors(f"read {folder}"):
        return [_entry(folder, path) for path in _plain_files(folder)]


def _plain_files(folder: Path) -> list[Path]:
    found = [
        Path(root) / name for root, _, names in os.walk(folder, followlinks=False) for name in names
    ]
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


def _entry(folder: Path, path: Path) -> FileEntry:
    return FileEntry(path.relative_to(folder).as_posix(), path.stat().st_size, None)


def _take(store: Store, path: Path, entry: FileEntry) -> tuple[str, int]:
    with storage_errors(f"read {path}"):
        sha256 = sha256_of(path)
    if store.blobs.is_sound(sha256, entry.size_bytes):
        return sha256, entry.size_bytes
    return store.take_in(path)
