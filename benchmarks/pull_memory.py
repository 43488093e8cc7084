"""Memory while 5 GB are pulled: the peak resident set of the whole `registry pull` process.

python -m benchmarks.pull_memory

The file is made of zeros that take no space at its source; it is logged by the real SDK and goes
through the backend, the wire and the checks like any other.
"""

from __future__ import annotations

import sys

from benchmarks._stage import allocated_bytes, stage, write_weights

SIZE_BYTES = 5_000_000_000
REACH_BYTES = 256_000_000


def main() -> int:
    """Log, pull, print; return 1 when the memory exceeds what it should."""
    with stage() as at:
        source = at.folder / "source"
        source.mkdir()
        write_weights(source / "model.safetensors", SIZE_BYTES, sparse=True)
        name = at.log("run-vast", source)
        home = at.folder / "pulling"
        command = [sys.executable, "-m", "registry", "pull", "--quiet", name]
        ended = at.run(command, home)
        disk = allocated_bytes(home / "runport") / SIZE_BYTES
        print(f"pulled                 {SIZE_BYTES / 1e9:6.1f} GB in {ended.wall_s:.1f} s")
        print(f"peak memory            {ended.peak_bytes / 1e6:6.0f} MB  (reach: less than 256)")
        print(f"disk / artifact        {disk:6.2f}     (reach: 1.0)")
    return 0 if ended.peak_bytes < REACH_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
