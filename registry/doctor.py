"""Doctor: is this machine ready, and if not, what is the next step.

Each check looks at one thing and says so in a sentence; none raises, none changes
anything but for a probe file in the cache folder that is gone again.
"""

from __future__ import annotations

import importlib.metadata
import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from registry.config import Settings
from registry.errors import ConfigError, RegistryError, StorageError, UnavailableError
from registry.export import CANDIDATES, usable_candidates, why_unusable
from registry.store.durable import make_folder

if TYPE_CHECKING:
    from registry.hub import Hub

Status = Literal["ok", "warning", "failed", "skipped"]

REACH_TIMEOUT_S = 5.0
LITTLE_SPACE_BYTES = 2 * 10**9
_LOCK_TIMEOUT_S = 20
_TRY_LOCK = """
import fcntl, sys
try:
    fcntl.flock(open(sys.argv[1], "rb"), fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(9)
"""
_LOCKED_OUT = 9


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found.

    Attributes:
        name: such as `login`.
        status: `ok`, `warning` (works, but), `failed`, or `skipped`.
        detail: what was found, in a sentence.
        hint: the next step; empty when there is none.
        exit_code: for the command line when this is the first that failed; 0 otherwise.
    """

    name: str
    status: Status
    detail: str
    hint: str = ""
    exit_code: int = 0


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All checks, in order."""

    checks: tuple[Check, ...]

    @property
    def exit_code(self) -> int:
        """Exit status of the first failed check; 0 when none failed."""
        return next((check.exit_code for check in self.checks if check.status == "failed"), 0)


def examine(settings: Settings, hub: Hub) -> Diagnosis:
    """Run all checks.

    Args:
        settings: cache, server and offline mode.
        hub: the server, as `settings` without an entity name it.
    """
    host = check_host(settings, hub)
    reachable = host.status == "ok"
    return Diagnosis(
        (
            check_python(),
            check_sdk(),
            host,
            check_login(hub) if reachable else _skipped("login", "the server was not asked"),
            check_cache_folder(settings.cache_dir),
            check_disk(settings.cache_dir),
            check_locks(settings.cache_dir),
            check_engine(),
            check_exporter(),
        )
    )


def check_python() -> Check:
    """Say which Python and which release of Runport this is."""
    version = ".".join(map(str, sys.version_info[:3]))
    return Check("runport", "ok", f"runport {_installed('runport')} on Python {version}")


def check_sdk() -> Check:
    """Check that the installed SDK is one that this release was tested with."""
    from packaging.requirements import Requirement

    found = _installed("wandb")
    if found is None:
        return _failed("sdk", ConfigError("wandb is not installed.", hint="pip install runport"))
    wanted = [Requirement(text) for text in importlib.metadata.requires("runport") or []]
    limits = next((one.specifier for one in wanted if one.name == "wandb"), None)
    if limits is not None and not limits.contains(found, prereleases=True):
        hint = f"pip install 'wandb{limits}'"
        return Check("sdk", "warning", f"wandb {found} is outside of {limits}", hint)
    return Check("sdk", "ok", f"wandb {found}")


def check_host(settings: Settings, hub: Hub) -> Check:
    """Check that the W&B server's port can be reached."""
    if settings.offline:
        return _skipped("host", "offline mode (RUNPORT_OFFLINE)")
    try:
        address = settings.base_url or hub.address()
        parts = urlsplit(address)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        with socket.create_connection((parts.hostname or "", port), timeout=REACH_TIMEOUT_S):
            return Check("host", "ok", f"{address} can be reached")
    except RegistryError as error:
        return _failed("host", error)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return _failed(
            "host",
            UnavailableError(
                f"{address} cannot be reached: {reason}.",
                hint="Is WANDB_BASE_URL right? Without an account: registry backend",
            ),
        )


def check_login(hub: Hub) -> Check:
    """Check that the server takes our key."""
    try:
        return Check("login", "ok", f"logged in as {hub.default_entity()}")
    except RegistryError as error:
        return _failed("login", error)


def check_cache_folder(folder: Path) -> Check:
    """Check that the cache folder is ours, private, and can be written."""
    try:
        make_folder(folder)
        status = folder.stat()
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        hint = "Set RUNPORT_CACHE_DIR to a folder that you can write."
        detail = f"{folder} cannot be written: {error.strerror}."
        return _failed("cache", StorageError(detail, hint=hint))
    if status.st_mode & 0o022:
        hint = f"chmod go-w {folder}"
        return Check("cache", "warning", f"other users can write into {folder}", hint)
    if status.st_uid != os.getuid():
        return Check("cache", "warning", f"{folder} belongs to another user")
    return Check("cache", "ok", f"{folder} can be written")


def check_disk(folder: Path) -> Check:
    """Check that there is space for a model."""
    try:
        status = os.statvfs(folder)
    except OSError as error:
        return _failed("disk", StorageError(f"{folder}: {error.strerror}."))
    free_bytes = status.f_bavail * status.f_frsize
    detail = f"{free_bytes / 1e9:.1f} GB free for the cache"
    if free_bytes < LITTLE_SPACE_BYTES:
        return Check("disk", "warning", detail, "registry cache prune --max-size 0 --dry-run")
    return Check("disk", "ok", detail)


def check_locks(folder: Path) -> Check:
    """Check that a lock of this process keeps another one out, on the cache's file system."""
    import fcntl

    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".lock-probe.", suffix=".tmp") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            other = subprocess.run(  # noqa: S603 - this interpreter, our own text
                [sys.executable, "-S", "-c", _TRY_LOCK, file.name],
                timeout=_LOCK_TIMEOUT_S,
                capture_output=True,
                check=False,
            )
    except (OSError, subprocess.SubprocessError) as error:
        return Check("locks", "warning", f"locks cannot be tried: {error}")
    if other.returncode == _LOCKED_OUT:
        return Check("locks", "ok", "locks work on the cache's file system")
    return Check(
        "locks",
        "warning",
        "locks do nothing on the cache's file system",
        "All stays right, but processes may fetch the same version at the same time.",
    )


def check_engine() -> Check:
    """Say which inference engines are installed."""
    found = [
        f"{name} {version}"
        for name in ("onnxruntime", "onnxruntime-gpu", "openvino", "torch")
        if (version := _installed(name))
    ]
    if not found:
        return _failed(
            "engines", ConfigError("No engine is installed.", hint="pip install runport")
        )
    return Check("engines", "ok", f"{', '.join(found)}; precisions: {_precisions()}")


def _precisions() -> str:
    """Say which engines and precisions this machine runs, and what keeps it from the others."""
    usable = ", ".join(one.name for one in usable_candidates())
    others = [(one.name, why_unusable(one)) for one in CANDIDATES if why_unusable(one)]
    return "; ".join([usable, *(f"not {name}: {why}" for name, why in others)])


def check_exporter() -> Check:
    """Say whether exports can be made here."""
    needed = ("torch", "transformers", "onnx", "onnxscript")
    missing = [name for name in needed if _installed(name) is None]
    if missing:
        hint = "pip install 'runport[export]', where exports are to be made"
        return Check("export", "warning", f"cannot export: no {', '.join(missing)}", hint)
    return Check("export", "ok", ", ".join(f"{name} {_installed(name)}" for name in needed))


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _failed(name: str, error: RegistryError) -> Check:
    return Check(name, "failed", error.message, error.hint, error.exit_code)


def _skipped(name: str, why: str) -> Check:
    return Check(name, "skipped", why)
