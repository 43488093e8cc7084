"""What an exporting child takes from itself before it works: memory, time, files, the network."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Protocol

from registry.errors import ExportError, RegistryError, StorageError
from registry.export.channel import Emit
from registry.export.messages import Failure
from registry.rlimits import limit_process

_NETWORK_EVENTS = {"socket.connect", "socket.getaddrinfo", "socket.bind", "socket.sendto"}


class Limits(Protocol):
    """The part of a request that says how much the child may take."""

    @property
    def memory_limit_bytes(self) -> int:
        """Address space."""

    @property
    def cpu_limit_s(self) -> int:
        """Processor time."""

    @property
    def file_limit_bytes(self) -> int:
        """Longest file that it may write."""


def confine(limits: Limits) -> None:
    """Limit this process for good; call it before anything heavy is imported."""
    limit_process(
        memory_bytes=limits.memory_limit_bytes,
        cpu_s=limits.cpu_limit_s,
        file_bytes=limits.file_limit_bytes,
    )
    sys.addaudithook(forbid_network)


def forbid_network(event: str, _arguments: tuple[Any, ...]) -> None:
    """Refuse whatever would open a connection; an audit hook."""
    if event in _NETWORK_EVENTS:
        raise PermissionError("an export uses no network")


def reported(limits: Limits, emit: Emit, work: Callable[[], None]) -> bool:
    """Do the work; send what it raises to the parent. Return whether it ended well.

    Args:
        limits: what the process was confined to, for the words.
        emit: sends a message.
        work: everything that the child does.
    """
    try:
        work()
    except RegistryError as error:
        emit(Failure(**error.as_dict()))
        return False
    except MemoryError:
        emit(Failure(ExportError.code, *_out_of_memory(limits)))
        return False
    except OSError as error:
        emit(Failure(StorageError.code, *_no_storage(error)))
        return False
    return True


def _out_of_memory(limits: Limits) -> tuple[str, str]:
    return (
        f"The export needs more than {limits.memory_limit_bytes / 2**30:.0f} GiB of memory.",
        "Does config.json fit the weights? A far larger model than its weights needs this much.",
    )


def _no_storage(error: OSError) -> tuple[str, str]:
    return (
        f"The export cannot be written: {error.strerror or error}.",
        "Free space, or point RUNPORT_CACHE_DIR at another disk.",
    )
