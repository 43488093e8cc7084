"""The parity report of a comparison, with the machine that it was made on."""

from __future__ import annotations

import contextlib
import platform
import resource
from collections.abc import Sequence
from pathlib import Path

from registry.export.comparison import Comparison
from registry.export.messages import ChildRequest, DeriveRequest
from registry.export.report import ParityReport


def verdict(
    request: ChildRequest | DeriveRequest,
    comparison: Comparison,
    *,
    relative: bool,
    lengths: Sequence[int],
    samples: int,
    seconds: float,
    unit: str = "tokens",
) -> ParityReport:
    """Return the report on `comparison`; it passed when both differences are within tolerance.

    Args:
        request: names tolerance, threads and tools.
        comparison: of the export with torch.
        relative: whether the tolerance grows with the largest output above 1.
        lengths: of the inputs.
        samples: how many of the inputs came from the artifact.
        seconds: how long the comparison took.
        unit: of the lengths.
    """
    allowed = request.tolerance
    if relative:
        allowed *= max(1.0, comparison.largest_reference)
    worst = max(comparison.max_abs_diff, comparison.max_batched_abs_diff)
    return ParityReport(
        passed=worst <= allowed,
        tolerance=request.tolerance,
        allowed_abs_diff=allowed,
        max_abs_diff=comparison.max_abs_diff,
        max_batched_abs_diff=comparison.max_batched_abs_diff,
        max_invariance_abs_diff=comparison.max_invariance_abs_diff,
        percentiles=comparison.percentiles,
        label_agreement=comparison.label_agreement,
        batched_label_agreement=comparison.batched_label_agreement,
        inputs=len(lengths),
        samples=samples,
        lengths=tuple(sorted(set(lengths))),
        unit=unit,
        seconds=round(seconds, 3),
        tools={"python": platform.python_version(), **request.tools},
        hardware=_hardware(request.threads),
    )


def peak_memory_bytes() -> int:
    """Return the most memory that this process held, before `exec` included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _hardware(threads: int) -> dict[str, str]:
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    return {
        "processor": processor,
        "machine": platform.machine(),
        "system": platform.system(),
        "threads": str(threads),
    }
