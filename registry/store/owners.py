"""Which process a file belongs to, and whether that process is still there.

A mark `<machine>.<pid>.<started>` stands in the file's name. On this machine a
process is known by its id and start time, so that neither `kill -9` nor a
reused id leaves a file owned; one of another machine counts as alive while its
file was touched lately.
"""

from __future__ import annotations

import functools
import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path

FOREIGN_SILENCE_S = 3600.0
"""How long another machine's process may leave its file untouched."""


def owner_mark(pid: int | None = None) -> str:
    """Return the mark of a process on this machine (default: this one)."""
    pid = os.getpid() if pid is None else pid
    return f"{_machine()}.{pid}.{_started(pid)}"


def is_gone(mark: str, touched_s: float) -> bool:
    """Whether the process with this mark has ended.

    Args:
        mark: from `owner_mark`; text of another shape is nobody's and counts as alive.
        touched_s: Unix time when its file was last written or touched.
    """
    parts = mark.split(".")
    if len(parts) != 3 or not parts[1].isdigit():
        return False
    machine, pid, started = parts
    if machine == _machine():
        return _started(int(pid)) != started
    return time.time() - touched_s > FOREIGN_SILENCE_S


@functools.cache
def _machine() -> str:
    # Containers may share a host name and a cache volume; their process
    # namespaces tell them apart, and the boot id tells a restart.
    marks = [os.uname().nodename]
    with suppress(OSError):
        marks.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        marks.append(str(os.stat("/proc/self/ns/pid").st_ino))
    return hashlib.sha256("\n".join(marks).encode()).hexdigest()[:12]


def _started(pid: int) -> str | None:
    """Return when the process started (in clock ticks), or None if it is gone."""
    if not os.path.exists("/proc/self/stat"):
        return _alive(pid)
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    # A zombie has ended; only its parent has not looked yet.
    return None if len(fields) < 20 or fields[0] in {"Z", "X"} else fields[19]


def _alive(pid: int) -> str | None:
    # Systems without /proc: the id alone has to do.
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "0"
