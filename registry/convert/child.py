"""`python -m registry.convert.child`: the only process that unpickles anything, and how.

It limits itself before it imports torch; PyTorch's restricted unpickler builds tensors and
plain containers and calls nothing else; and should that have a hole, starting programs and
speaking to the network raise here. It knows no keys: its environment is empty.
"""

from __future__ import annotations

import os
import pickle
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import msgspec

from registry.convert.archive import check_archive, is_archive
from registry.convert.messages import ConvertedFile, ConvertRequest, Done, Failed, FileJob
from registry.convert.state import check_architecture, check_size, find_tensors
from registry.convert.writer import check_written, write_safetensors
from registry.errors import (
    ConversionError,
    IntegrityError,
    RegistryError,
    StorageError,
    UnsafeContentError,
)
from registry.rlimits import end_with_parent, limit_process

_FIRST_SAFE_TORCH = (2, 10)
"""Before it the restricted unpickler could be made to write where it should not."""

_FORBIDDEN = (
    "socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn",
    "pty.", "os.remove", "os.rename", "os.rmdir", "shutil.",
)  # fmt: skip
_GLOBAL = re.compile(r"GLOBAL:? ([\w.]+)")
_OUT_OF_MEMORY = ("allocate memory", "not enough memory", "Cannot allocate")


def main() -> None:
    """Read a request from stdin, convert, answer on what was stdout."""
    messages = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # Whatever libraries print is no answer.
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=ConvertRequest)
    end_with_parent(request.parent_pid)
    limit_process(
        memory_bytes=request.memory_limit_bytes,
        cpu_s=request.cpu_limit_s,
        file_bytes=request.file_limit_bytes,
    )
    messages.write(msgspec.json.encode(_answer(request)))
    messages.flush()
    sys.stderr.flush()
    # Native threads of torch need not be unwound; all that matters was said.
    os._exit(0)


def _answer(request: ConvertRequest) -> Done | Failed:
    try:
        # What needs no torch to be seen is said without it.
        for job in request.files:
            check_archive(Path(job.source), _shown(job, request))
        import_torch(with_transformers=any(j.checkpoint and j.config_dir for j in request.files))
        sys.addaudithook(_forbid)
        return Done(tuple(_convert(job, _shown(job, request)) for job in request.files))
    except RegistryError as error:
        return Failed(**error.as_dict())
    except MemoryError:
        return Failed(**_too_large("The weights").as_dict())
    except OSError as error:
        return Failed(
            StorageError.code,
            f"The converted weights cannot be written: {error.strerror or error}.",
            "Free space, or point RUNPORT_CACHE_DIR at another disk.",
        )


def import_torch(*, with_transformers: bool) -> None:
    """Import what reads weights, before programs and network are forbidden.

    Raises:
        ConversionError: it is not installed, or is known to be unsafe.
    """
    try:
        import torch

        if with_transformers:
            import transformers  # noqa: F401 - to be there before the hook is
    except ImportError as error:
        raise ConversionError(
            f"Converting pickled weights needs {error.name}, which is not installed.",
            hint="Install runport[export] here, or pull once where it is installed and push the "
            "converted folder (`registry push`).",
        ) from error
    found = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if found < _FIRST_SAFE_TORCH:
        raise ConversionError(
            f"torch {torch.__version__} can be attacked by a file that it only reads "
            "(CVE-2025-32434, CVE-2026-24747).",
            hint="Install torch 2.10 or newer.",
        )


def _forbid(event: str, _arguments: tuple[Any, ...]) -> None:
    """Refuse to start programs, remove files or speak to anybody; an audit hook."""
    if event.startswith(_FORBIDDEN):
        raise UnsafeContentError(
            f"Reading the weights led to {event}, which was refused.",
            hint="This file attacks the program that reads it. Do not load it anywhere.",
        )


def _shown(job: FileJob, request: ConvertRequest) -> str:
    return f"{job.path!r} in {request.name}"


def _convert(job: FileJob, shown: str) -> ConvertedFile:
    source, target = Path(job.source), Path(job.target)
    loaded = _load(source, shown)
    tensors, prefix = find_tensors(loaded, shown, checkpoint=job.checkpoint)
    check_size(tensors, source.stat().st_size, shown)
    if job.checkpoint and job.config_dir:
        check_architecture(set(tensors), Path(job.config_dir), shown)
    write_safetensors(tensors, target, shown)
    check_written(tensors, target, shown)
    return ConvertedFile(job.path, tuple(sorted(tensors)), prefix)


def _load(source: Path, shown: str) -> Any:
    import torch

    mapped = is_archive(source)  # The format before PyTorch 1.6 cannot be mapped.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except RegistryError:
        raise
    except pickle.UnpicklingError as error:
        raise _refused(str(error), shown) from error
    except MemoryError as error:
        raise _too_large(shown) from error
    except Exception as error:
        # Of torn and hostile files anything may come; none of it is a reason to go on.
        words = " ".join(str(error).split())[:200]
        if any(sign in words for sign in _OUT_OF_MEMORY):
            raise _too_large(shown) from error
        raise IntegrityError(
            f"{shown} cannot be read: it was cut, is damaged, or is not a file of PyTorch "
            f"({type(error).__name__}: {words}).",
            hint="Log the model again, or leave it out with --exclude.",
        ) from error


def _refused(text: str, shown: str) -> UnsafeContentError:
    found = _GLOBAL.search(text)
    what = f"asks for {found[1]}" if found else "holds more than tensors"
    return UnsafeContentError(
        f"{shown} {what}, which weights do not need. Nothing of it was run.",
        hint="Log only the weights: what `model.save_pretrained(…)` or torch.save(model."
        "state_dict(), …) saves. --exclude leaves it out.",
    )


def _too_large(what: str) -> ConversionError:
    return ConversionError(
        f"{what} cannot be converted in the memory that is allowed for it.",
        hint="Save the model again with safetensors where it was trained.",
    )


if __name__ == "__main__":
    main()
