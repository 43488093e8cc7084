"""Memory that the host has given to this machine before a clock starts.

A virtual machine may hand free memory back to its host within seconds, and pays for each page
that it touches again: where the figures of docs/benchmarks.md were taken, 2 to 3 s of processor
time for 1 GB, ten times what writing it to a file takes. Whoever runs first after a pause would
pay that and whoever runs next would not.

python -m benchmarks._memory BYTES
"""

from __future__ import annotations

import mmap
import sys

_STEP_BYTES = 4096


def touch(size_bytes: int) -> None:
    """Touch so many bytes of free memory, and free them again.

    Raises:
        OSError: there is not so much memory.
    """
    with mmap.mmap(-1, size_bytes) as memory:
        for offset in range(0, size_bytes, _STEP_BYTES):
            memory[offset] = 1


if __name__ == "__main__":
    touch(int(sys.argv[1]))
