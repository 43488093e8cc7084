"""The converting child: started with nothing, limited, and always gone at the end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import msgspec

import registry.errors
from registry.convert.messages import Answer, ConvertRequest, Done, Failed
from registry.errors import ConversionError, RegistryError

_TAIL_LINES = 8
_TAIL_BYTES = 4096


def run_child(request: ConvertRequest, *, scratch_dir: Path, timeout_s: float) -> Done:
    """Convert in a child process.

    Args:
        request: what to convert, and how much the child may take.
        scratch_dir: an empty private folder: its home, its temporary files, its stderr.
        timeout_s: it is killed after this long.

    Raises:
        RegistryError: what the child raised, as the same class.
        ConversionError: it died, or did not end in time.
    """
    log = scratch_dir / "stderr.log"
    with log.open("wb") as errors:
        child = _start(scratch_dir, errors)
        try:
            raw, _ = child.communicate(msgspec.json.encode(request), timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise ConversionError(
                f"Converting took longer than {timeout_s:.0f} s and was stopped.",
                hint="Save the model again with safetensors where it was trained.",
            ) from error
        finally:
            # The whole session: nothing that it may have started stays.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
    return _read(raw, child.returncode, log)


def _start(scratch_dir: Path, errors: IO[bytes]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "registry.convert.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=scratch_dir,
            env=_environment(scratch_dir),
            start_new_session=True,
        )
    except OSError as error:
        raise ConversionError(f"The converting process cannot be started: {error}.") from error


def _environment(scratch_dir: Path) -> dict[str, str]:
    """Return all that the child knows of the world: no keys, no network, no home."""
    return {
        "PATH": os.defpath,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUTF8": "1",
        "HOME": str(scratch_dir),
        "TMPDIR": str(scratch_dir),
        "HF_HOME": str(scratch_dir),
        "HF_HUB_OFFLINE": "1",
        "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",
        "OMP_NUM_THREADS": "1",
    }


def _read(raw: bytes, status: int | None, log: Path) -> Done:
    try:
        answer: Answer = msgspec.json.decode(raw, type=Answer)
    except msgspec.DecodeError as error:
        raise ConversionError(
            f"The converting process {_death(status)}.{_tail(log)}",
            hint="A damaged or hostile file can cause this. Save the model again with safetensors.",
        ) from error
    if isinstance(answer, Failed):
        raise _error_of(answer)
    return answer


def _error_of(failed: Failed) -> RegistryError:
    kinds = [kind for kind in vars(registry.errors).values() if isinstance(kind, type)]
    for kind in kinds:
        if issubclass(kind, RegistryError) and kind.code == failed.code:
            return kind(failed.error, hint=failed.hint)
    return ConversionError(failed.error, hint=failed.hint)


def _death(status: int | None) -> str:
    if status is None or status >= 0:
        return f"ended with status {status} and no answer"
    with contextlib.suppress(ValueError):
        return f"was killed ({signal.Signals(-status).name})"
    return f"was killed (signal {-status})"


def _tail(log: Path) -> str:
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
        lines = file.read().decode("utf-8", "replace").splitlines()[-_TAIL_LINES:]
        return "".join(f"\n  | {line}" for line in lines if line.strip())
    return ""
