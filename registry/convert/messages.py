"""What the converting process and its child say to each other: one JSON line each way."""

from __future__ import annotations

from typing import TypeAlias

import msgspec


class FileJob(msgspec.Struct, frozen=True):
    """One file to convert.

    Attributes:
        path: in the version, for messages.
        source, target: absolute paths; the target does not exist yet.
        checkpoint: whether it may be a trainer's checkpoint, of which only the model is wanted.
        config_dir: folder with the `config.json` that the names are to be held against; empty
            where there is none.
    """

    path: str
    source: str
    target: str
    checkpoint: bool
    config_dir: str = ""


class ConvertRequest(msgspec.Struct, frozen=True, kw_only=True):
    """All files of one version.

    Attributes:
        name: the version's, for messages.
        files: in order.
        parent_pid: the child ends with this process.
        memory_limit_bytes, cpu_limit_s, file_limit_bytes: what the child gives itself.
    """

    name: str
    files: tuple[FileJob, ...]
    parent_pid: int
    memory_limit_bytes: int
    cpu_limit_s: int
    file_limit_bytes: int


class ConvertedFile(msgspec.Struct, frozen=True):
    """One file that was written, read back and found right.

    Attributes:
        path: as in the job.
        names: of its tensors.
        prefix: what was taken off the front of every name.
    """

    path: str
    names: tuple[str, ...]
    prefix: str = ""


class Done(msgspec.Struct, frozen=True, tag=True):
    """Every file is written."""

    files: tuple[ConvertedFile, ...]


class Failed(msgspec.Struct, frozen=True, tag=True):
    """A `RegistryError` by its code, message and hint."""

    code: str
    error: str
    hint: str


Answer: TypeAlias = Done | Failed
