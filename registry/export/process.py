"""The child process of an export: started with nothing, watched, and always gone at the end."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import msgspec

from registry.errors import ExportError, RegistryError, UnavailableError
from registry.export.messages import Failure, FromChild, Progress, Success

EXPORTER = "registry.export.child"

_READ_BYTES = 1 << 16
_MAX_LINE_BYTES = 1 << 22
_STDERR_TAIL_BYTES = 4096
_STDERR_TAIL_LINES = 12

Report = Callable[[str], None]


def run_child(
    request: msgspec.Struct,
    *,
    scratch_dir: Path,
    timeout_s: float,
    progress: Report | None = None,
    module: str = EXPORTER,
) -> Success:
    """Run one export in a child process and return what it reported.

    Args:
        request: what to do.
        scratch_dir: an empty private folder: the child's home, its temporary files, its stderr.
        timeout_s: the child is killed after this long.
        progress: told of every stage.
        module: what the child runs; it reads the request from its stdin.

    Raises:
        RegistryError: what the child raised, as the same class.
        ExportError: it died, or did not end in time; the message has the end of its stderr.
    """
    log = scratch_dir / "stderr.log"
    deadline = time.monotonic() + timeout_s
    with log.open("wb") as errors, _started(module, scratch_dir, errors) as child:
        answer = _converse(child, request, deadline, progress or _say_nothing)
        timed_out = answer is None and time.monotonic() >= deadline
        # Closing the pipes tells a child that still works to end; a dead one is reaped at once.
        status = None if timed_out else _wait(child)
    if isinstance(answer, Success):
        return answer
    if isinstance(answer, Failure):
        raise _error_of(answer)
    if timed_out:
        raise ExportError(
            f"The export took longer than {timeout_s:.0f} s and was stopped.{_tail(log)}",
            hint="Allow more with --timeout, or serve it with torch.",
        )
    raise _death(status, log)


@contextlib.contextmanager
def _started(
    module: str, scratch_dir: Path, errors: IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    """Start the child in a session of its own; kill the whole session when the block ends."""
    try:
        child = subprocess.Popen(  # noqa: S603 - this interpreter, a module of ours
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=scratch_dir,
            env=_environment(scratch_dir),
            start_new_session=True,
        )
    except OSError as error:
        raise UnavailableError(f"The export's process cannot be started: {error}.") from error
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        child.wait()


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
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "WANDB_MODE": "disabled",
        # Fewer arenas: freed weights go back to the system instead of waiting per thread.
        "MALLOC_ARENA_MAX": "2",
    }


def _converse(
    child: subprocess.Popen[bytes], request: msgspec.Struct, deadline: float, progress: Report
) -> Success | Failure | None:
    """Send the request; return the final message, or None when the child ended or time is up."""
    if child.stdin is None or child.stdout is None:
        raise ExportError("The export's process has no pipes.")
    with contextlib.suppress(BrokenPipeError):
        child.stdin.write(msgspec.json.encode(request) + b"\n")
        child.stdin.flush()
    for line in _lines(child.stdout, deadline):
        try:
            message: FromChild = msgspec.json.decode(line, type=FromChild)
        except msgspec.DecodeError as error:
            raise ExportError("The export's process answered nonsense.") from error
        if not isinstance(message, Progress):
            return message
        progress(message.text)
    return None


def _lines(stream: IO[bytes], deadline: float) -> Iterator[bytes]:
    """Yield whole lines until the stream ends or the deadline passes."""
    buffer = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while (left_s := deadline - time.monotonic()) > 0 and len(buffer) <= _MAX_LINE_BYTES:
            if not selector.select(left_s):
                return
            chunk = os.read(stream.fileno(), _READ_BYTES)
            if not chunk:
                return
            *lines, buffer = (buffer + chunk).split(b"\n")
            yield from lines


def _wait(child: subprocess.Popen[bytes]) -> int | None:
    """Return the exit status of a child that has closed its stdout."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return child.wait(timeout=5)
    return None


def _error_of(failure: Failure) -> RegistryError:
    kinds = {kind.code: kind for kind in _descendants(RegistryError)}
    return kinds.get(failure.code, ExportError)(failure.error, hint=failure.hint)


def _descendants(kind: type[RegistryError]) -> Iterator[type[RegistryError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _descendants(child)


def _death(status: int | None, log: Path) -> ExportError:
    if status is not None and status < 0:
        name = signal.Signals(-status).name if -status in {*signal.Signals} else f"signal {-status}"
        if -status in (signal.SIGKILL, signal.SIGXCPU):
            name += ", most likely for memory" if -status == signal.SIGKILL else ", out of time"
        why = f"was killed ({name})"
    else:
        why = f"ended with status {status}" if status is not None else "stopped answering"
    return ExportError(
        f"The export's process {why}.{_tail(log)}",
        hint="The lines above come from its stderr; `registry serve --engine torch` needs none.",
    )


def _tail(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _STDERR_TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    kept = [line for line in lines if line.strip()][-_STDERR_TAIL_LINES:]
    return "\n" + "\n".join(f"  | {line}" for line in kept) if kept else ""


def _say_nothing(_text: str) -> None:
    """Be the listener of a caller that wants to hear nothing."""
